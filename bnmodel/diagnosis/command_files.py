"""The network, its weights and the data that the command line names."""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FACTORY = "a function or class that builds the network without arguments"
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class UseError(ValueError):
    """Wrong arguments or files: exit status 2."""


def load_model(target: str, weights: Path | None, train_mode: bool) -> nn.Module:
    """Call MODULE:FACTORY, or find torchvision:NAME, and load its weights strictly.

    Raises:
        UseError: no such module or factory, or it does not return a module; weights that do not fit.
    """
    module_name, _, factory_name = target.partition(":")
    if not module_name or not factory_name:
        raise UseError(f"model: expected MODULE:FACTORY, received {target!r}; for example torchvision:resnet18")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if "/" in module_name or module_name.endswith(".py"):
        parts = Path(module_name).with_suffix("").parts
        dotted = ".".join(parts if all(part.isidentifier() for part in parts) else parts[-1:])
        raise UseError(f"model: expected a module, received the file {module_name}; write {dotted}:{factory_name}")
    with redirect_stdout(sys.stderr):  # standard output is for the report
        return _built(target, module_name, factory_name, weights).train(train_mode)


def _built(target: str, module_name: str, factory_name: str, weights: Path | None) -> nn.Module:
    try:
        module = importlib.import_module("torchvision.models" if module_name == "torchvision" else module_name)
    except ImportError as error:
        raise UseError(f"model: {module_name} cannot be imported ({error}); run from your project's folder") from None
    except (Exception, SystemExit) as error:  # a script, whose own code runs
        raise UseError(
            f"model: importing {module_name} failed: {named(error)}; "
            'move the code of a script below if __name__ == "__main__":'
        ) from error
    factory = module
    for part in factory_name.split("."):
        factory = getattr(factory, part, None)  # type: ignore[assignment]
    if factory is None:
        raise UseError(f"model: {module_name} has no {factory_name}; expected {FACTORY}")
    try:
        model: Any = factory if isinstance(factory, nn.Module) else factory()  # type: ignore[operator]
    except (Exception, SystemExit) as error:
        raise UseError(f"model: {target} failed: {named(error)}; expected {FACTORY}") from error
    if not isinstance(model, nn.Module):
        raise UseError(f"model: expected {target} to return an nn.Module, received {type(model).__name__}")
    if weights is not None:
        _load_weights(model, weights)
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = safetensors().load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UseError:
        raise
    except FileNotFoundError:
        raise UseError(f"weights: {path} does not exist") from None
    except UnpicklingError:  # its message recommends weights_only=False
        raise UseError(
            f"weights: {path} is not a file of tensors, or contains objects other than tensors, which are not loaded; "
            "save model.state_dict()"
        ) from None
    except Exception as error:  # a damaged file may raise anything
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UseError(f"weights: {path} is not a file of tensors ({what}); save model.state_dict()") from None
    state = _state_of(state)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UseError(f"weights: expected a state_dict, received {type(state).__name__}; save model.state_dict()")
    state.pop("n_averaged", None)  # of an AveragedModel
    own = set(model.state_dict())
    while state and not own & set(state) and all("." in key for key in state):
        if len({key.partition(".")[0] for key in state}) > 1:
            break
        state = {key.partition(".")[2]: value for key, value in state.items()}  # of torch.compile or another wrapper
    sizes = {key: list(value.shape) for key, value in model.state_dict().items()}
    for key, value in state.items():
        if isinstance(value, Tensor) and list(value.shape) != sizes.get(key, list(value.shape)):
            raise UseError(
                f"weights: {path} does not fit the model: expected {key} of shape {sizes[key]}, received "
                f"{list(value.shape)}; build the network with the sizes that it was trained with"
            )
    missing, unexpected = model.load_state_dict(state, strict=False)
    buffers = {name for name, _ in model.named_buffers()}
    lost = [name for name in missing if name not in buffers]
    if lost or unexpected:
        wrong = [f"without {name}" for name in lost[:3]] + [f"with unknown {name}" for name in unexpected[:3]]
        raise UseError(f"weights: {path} does not fit the model ({', '.join(wrong)})")
    if missing:
        print(f"note: {path} lacks {len(missing)} buffers, such as {missing[0]}", file=sys.stderr)


def _state_of(checkpoint: Any) -> Any:
    """The state_dict within a checkpoint: under a usual key, or the only dict of tensors in it."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, dict) or any(isinstance(value, Tensor) for value in checkpoint.values()):
        return checkpoint
    dicts = [value for value in checkpoint.values() if isinstance(value, dict) and value]
    found = [each for each in dicts if all(isinstance(value, Tensor) for value in each.values())]
    return found[0] if len(found) == 1 else checkpoint


def read_data(path: Path, options: argparse.Namespace) -> list[Any]:
    """Batches of an NPZ file (`x`, optional `y`) or of a folder with a subfolder per class.

    Raises:
        UseError: the file or folder is not of that form.
    """
    if path.is_dir():
        return list(_folder_batches(path, options))
    if not path.exists():
        raise UseError(
            f"data: {path} does not exist; expected an .npz file or a folder; "
            "for a DataLoader, use bnmodel.diagnose(model, loader)"
        )
    if path.suffix == ".npy":
        raise UseError(f"data: expected an .npz file, received {path}; np.savez('data.npz', x=np.load('{path}'))")
    if path.suffix != ".npz":
        raise UseError(f"data: expected an .npz file or a folder, received {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = {name: arrays[name] for name in arrays.files}
    except Exception as error:
        raise UseError(f"data: {path} is not an .npz file without pickled objects ({error})") from None
    if "x" not in content:
        raise UseError(
            f"data: expected an array x in {path}, received {', '.join(content) or 'none'}; np.savez(path, x=…)"
        )
    for name in {"x", "y"} & set(content):
        if content[name].ndim == 0:
            raise UseError(f"data: expected an array {name} with a sample per row in {path}, received a single value")
        if not len(content[name]):
            raise UseError(f"data: expected at least one sample in {path}, received an empty {name}")
    for name, kinds in (("x", "fiu"), ("y", "fiub")):
        if name in content and content[name].dtype.kind not in kinds:
            raise UseError(f"data: expected numbers as {name} in {path}, received {content[name].dtype}")
    # in random order, as those of a folder: rows are often sorted by class
    chosen = torch.randperm(len(content["x"]), generator=torch.Generator().manual_seed(0))[: options.samples].numpy()
    x = torch.from_numpy(content["x"][chosen])
    if x.is_floating_point():
        x = x.to(options.dtype)
    size = min(options.batch_size, len(x))
    if "y" not in content:
        return list(x.split(size))
    if len(content["x"]) != len(content["y"]):
        raise UseError(f"data: expected as many y as x, received {len(content['y'])} and {len(content['x'])}")
    y = content["y"][chosen]
    y = torch.from_numpy(y.astype(np.int64) if y.dtype.kind == "u" else y)
    return list(zip(x.split(size), y.split(size), strict=True))


def _folder_batches(path: Path, options: argparse.Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    from PIL import Image

    if options.size is None or options.mean is None or options.std is None:
        raise UseError(
            "data: a folder needs --size, --mean and --std as in training, such as --size 224 --mean 0.485 …"
        )
    if len(options.size) > 2:
        raise UseError(f"data: expected --size SIDE or --size HEIGHT WIDTH, received {len(options.size)} numbers")
    if len(options.mean) != len(options.std) or len(options.mean) not in (1, 3) or min(options.std) <= 0:
        raise UseError("data: expected one or three --mean and as many --std > 0")
    classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    files = [
        (file, label)
        for label, folder in enumerate(classes)
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in IMAGES
    ]
    if empty := [folder.name for folder in classes if not any(folder in file.parents for file, _ in files)]:
        raise UseError(f"data: expected images in every subfolder of {path}, received none in {', '.join(empty[:3])}")
    if not files:
        raise UseError(f"data: expected images in a subfolder per class of {path}, received none")
    chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[: options.samples].tolist()
    mean = torch.tensor(options.mean).view(-1, 1, 1)
    std = torch.tensor(options.std).view(-1, 1, 1)
    size = (options.size[0], options.size[-1])  # height, width
    for start in range(0, len(chosen), options.batch_size):
        images, labels = [], []
        for index in chosen[start : start + options.batch_size]:
            file, label = files[index]
            try:
                with Image.open(file) as image:  # as torchvision's ImageFolder opens it
                    pixels = image.convert("L" if len(mean) == 1 else "RGB").resize(
                        (size[1], size[0]), Image.Resampling.BILINEAR
                    )
            except (OverflowError, MemoryError) as error:
                raise UseError(
                    f"data: {file} cannot be resized to {size[0]} × {size[1]} pixels; choose a smaller --size"
                ) from error
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                raise UseError(f"data: {file} is no readable image ({error})") from error
            array = np.asarray(pixels, dtype=np.float32) / 255
            images.append((torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1) - mean) / std)
            labels.append(label)
        yield torch.stack(images).to(options.dtype), torch.tensor(labels)


def safetensors() -> ModuleType:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError:
        raise UseError(".safetensors files need safetensors; pip install safetensors") from None


def named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
