"""Checkpoints: files of tensors and plain data, written atomically and read without unpickling objects."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from bnmodel.io import atomic_write
from bnmodel.nn.models import NETWORKS, Network

FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint is missing, damaged or incompatible; the message names the file and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network (eval mode, on the CPU) and how it was trained."""

    model: Network
    recipe: dict[str, Any]
    results: dict[str, Any]  # the best epoch: epoch, train_loss, validation_loss, validation_accuracy, …
    dataset: str


def save_checkpoint(
    path: Path | str, model: Network, recipe: dict[str, Any], results: dict[str, Any], dataset: str
) -> None:
    """Write `model`, its buffers included, and how it was trained to `path`, atomically."""
    content = {
        "format": FORMAT,
        "architecture": type(model).__name__,
        "config": asdict(model.config),
        "state": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        "recipe": recipe,
        "results": results,
        "dataset": dataset,
    }
    save_plain(path, content)


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a `best.pt`, given the file or its folder.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, architecture or shape, or has non-finite
            weights.
    """
    path = Path(path)
    path = path / "best.pt" if path.is_dir() else path
    content = load_plain(path)
    if content.get("format") != FORMAT or str(content.get("architecture")) not in NETWORKS:
        raise CheckpointError(
            f"{path}: expected a checkpoint of {' or '.join(NETWORKS)}, format {FORMAT}, received "
            f"{content.get('architecture')!r}, format {content.get('format')!r}; train again with this version: "
            f"python -m bnmodel train"
        )
    try:
        network, config = NETWORKS[content["architecture"]]
        model = network(config(**content["config"]))
        model.load_state_dict(content["state"])
        checkpoint = Checkpoint(model.eval(), content["recipe"], content["results"], content["dataset"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: the weights do not match the network described in the file ({error}); train again"
        ) from error
    broken = [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise CheckpointError(
            f"{path}: expected finite weights, received NaN or infinity in {', '.join(broken)}; the training diverged: "
            f"train again with a lower learning rate"
        )
    return checkpoint


def save_plain(path: Path | str, content: dict[str, Any]) -> None:
    """Write a torch file of tensors and plain data, atomically.

    Raises:
        OSError: the folder is not writable or the disk is full; an existing file at `path` is unchanged.
    """
    buffer = io.BytesIO()  # on a full disk torch.save fails with an uninformative C++ error
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_plain(path: Path) -> dict[str, Any]:
    """Read a torch file of tensors and plain data.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other objects.
    """
    try:
        with ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:  # torch.load does not check the checksums
                raise BadZipFile(f"the checksum of {member} does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        folder = path.parent if path.suffix else path
        raise CheckpointError(f"{path}: no such file; train one: python -m bnmodel train --out {folder}") from None
    except UnpicklingError as error:  # its message recommends weights_only=False
        raise CheckpointError(
            f"{path}: expected tensors and plain data, received other objects, which are not loaded; train again"
        ) from error
    except Exception as error:  # a damaged archive may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dictionary, received {type(content).__name__}")
    return content


def copy_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of weights and buffers, unlike `state_dict()`, whose tensors change with further training."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
