"""Checkpoints: exact, written atomically, and refused if damaged or incompatible."""

import errno
import json
import os
import pickle
import random
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from bnmodel import CheckpointError, CustomBatchNorm, SimpleCNN, SimpleCNNConfig, load_checkpoint
from bnmodel.io import atomic_write
from bnmodel.training.checkpoint import copy_state, save_checkpoint
from bnmodel.training.recipes import FAST

RESULTS = {"epoch": 3, "validation_loss": 0.1 + 0.2}  # not a short decimal


def a_model(config: SimpleCNNConfig = SimpleCNNConfig()) -> SimpleCNN:
    """A network with no parameter or statistic at its initial value."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SimpleCNN(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
        model(torch.rand(8, 1, 28, 28))
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good checkpoint."""
    save_checkpoint(tmp_path / "best.pt", a_model(), FAST.to_dict(), RESULTS, "digits")
    return tmp_path / "best.pt"


def rewrite(path: Path, **changes: object) -> None:
    """The checkpoint with some of its entries replaced."""
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


# --- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [SimpleCNNConfig(), SimpleCNNConfig("before", (3, 4), 5, 0.1), SimpleCNNConfig("none")],
    ids=lambda config: config.norm,
)
def test_a_loaded_checkpoint_is_the_saved_model_bit_for_bit_in_eval_mode(
    config: SimpleCNNConfig, tmp_path: Path
) -> None:
    model = a_model(config)
    save_checkpoint(tmp_path / "best.pt", model, {}, {}, "")
    loaded = load_checkpoint(tmp_path / "best.pt").model
    assert loaded.config == config
    assert not loaded.training
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    images = torch.rand(4, 1, 28, 28)
    assert torch.equal(loaded(images), model.eval()(images))


def test_the_running_statistics_are_part_of_it(path: Path) -> None:
    norms = [module for module in load_checkpoint(path).model.modules() if isinstance(module, CustomBatchNorm)]
    assert len(norms) == 2
    for norm in norms:
        assert norm.num_batches_tracked == 1
        assert (norm.running_mean != 0).any()


def test_recipe_results_and_dataset_are_loaded_unchanged(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert json.dumps(checkpoint.recipe) == json.dumps(FAST.to_dict())
    assert checkpoint.results == RESULTS
    assert checkpoint.dataset == "digits"


def test_the_folder_that_holds_it_can_be_named_instead(path: Path) -> None:
    assert load_checkpoint(path.parent).results == load_checkpoint(str(path)).results == RESULTS


def test_saving_does_not_change_the_model(tmp_path: Path) -> None:
    model = a_model().train()
    before = copy_state(model)
    save_checkpoint(tmp_path / "best.pt", model, {}, {}, "")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_copied_state_does_not_change_with_further_training() -> None:
    model = a_model()
    state = copy_state(model)
    kept = {name: tensor.tolist() for name, tensor in state.items()}
    model(torch.rand(8, 1, 28, 28))  # moves the running statistics
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert {name: tensor.tolist() for name, tensor in state.items()} == kept
    assert not any(tensor.requires_grad for tensor in state.values())


# --- errors ----------------------------------------------------------------------------------------------------------


def refused(path: Path, *parts: str) -> None:
    """Loading raises, and the message names the file and `parts`."""
    with pytest.raises(CheckpointError) as refusal:
        load_checkpoint(path)
    for part in (str(path), *parts):
        assert part in str(refusal.value)


@pytest.mark.parametrize("name", ["best.pt", "."])
def test_a_missing_checkpoint_is_named_and_the_command_to_train_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as refusal:
        load_checkpoint(tmp_path / name)
    for part in (str(tmp_path / "best.pt"), "no such file", "python -m bnmodel train"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(share: float, path: Path) -> None:
    contents = path.read_bytes()
    path.write_bytes(contents[: int(len(contents) * share)])
    refused(path, "damaged")


def test_a_checkpoint_with_a_flipped_bit_is_refused_or_the_same(path: Path) -> None:
    contents, expected = path.read_bytes(), load_checkpoint(path).model.state_dict()
    generator, harmless = random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(contents)
        damaged[generator.randrange(len(contents))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            state = load_checkpoint(path).model.state_dict()
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017 - most flips are refused, not all
        else:  # padding and dates of the archive
            harmless += 1
            assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())
    assert harmless < 15


@pytest.mark.parametrize("contents", [b"", b"\x80\x02.", b"hello", b"PK\x03\x04", bytes(5000)], ids=repr)
def test_a_file_of_something_else_is_refused(contents: bytes, path: Path) -> None:
    path.write_bytes(contents)
    refused(path, "damaged, or not a checkpoint")


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["whole", "recipe", "state"])
def test_code_in_a_checkpoint_is_refused_and_never_runs(place: str, zipped: bool, path: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    attack = Malicious(marker)
    content = attack if place == "whole" else {**torch.load(path, weights_only=True), place: attack}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    refused(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert marker.exists()  # it was a real attack


def test_the_refusal_of_code_does_not_recommend_to_run_it(path: Path, tmp_path: Path) -> None:
    torch.save(Malicious(tmp_path / "marker"), path)
    with pytest.raises(CheckpointError) as refusal:
        load_checkpoint(path)
    assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(
    "content", [None, 3, [1, 2], "weights", torch.zeros(3)], ids=lambda content: type(content).__name__
)
def test_a_torch_file_of_another_type_is_refused(content: object, path: Path) -> None:
    torch.save(content, path)
    refused(path, f"expected a dictionary, received {type(content).__name__}")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"architecture": "SimpleMLP"}, "received 'SimpleMLP'"),
        ({"architecture": ["SimpleCNN"]}, "received ['SimpleCNN']"),
        ({"format": 99}, "format 99"),
        ({"config": {"hidden": 60}}, "do not match"),
        ({"config": {"hidden": -1}}, "hidden: expected at least 1"),
        ({"config": {"layers": 3}}, "do not match"),
        ({"config": None}, "do not match"),
        ({"state": {}}, "do not match"),
        ({"state": None}, "do not match"),
        ({"state": {"weight": torch.zeros(3)}}, "do not match"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_network_is_refused(changes: dict, part: str, path: Path) -> None:
    rewrite(path, **changes)
    refused(path, part)


@pytest.mark.parametrize("entry", ["format", "architecture", "config", "state", "recipe", "results", "dataset"])
def test_a_checkpoint_without_one_of_its_entries_is_refused(entry: str, path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content[entry]
    torch.save(content, path)
    refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["dense1.weight", "block2.norm.running_var"])
def test_weights_and_statistics_that_are_not_finite_are_refused_by_name(name: str, value: float, path: Path) -> None:
    state = torch.load(path, weights_only=True)["state"]
    state[name].view(-1)[0] = value
    rewrite(path, state=state)
    refused(path, f"expected finite weights, received NaN or infinity in {name};", "learning rate")


# --- atomic writes ---------------------------------------------------------------------------------------------------


def test_a_save_that_fails_halfway_leaves_the_old_checkpoint_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def disk_full(file: Path, content: bytes) -> None:
        file.write_text("half a checkp")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match=r"best\.pt: cannot be written \(No space left on device\); free some space"):
        save_checkpoint(path, a_model(), {}, {}, "")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_atomic_write_that_fails_leaves_no_file(failure: type[BaseException], tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "new.txt") as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert not list(tmp_path.iterdir())


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
        assert temporary.parent == file.parent  # else the move would not be atomic
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_written_file_can_be_read_by_others_and_its_folder_is_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "file.txt"
    with atomic_write(file) as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_written_file_keeps_its_permissions_and_the_links_to_it(tmp_path: Path) -> None:
    file, link = tmp_path / "file.txt", tmp_path / "link.txt"
    file.write_text("old")
    file.chmod(0o600)
    link.symlink_to(file)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o600)
    assert link.is_symlink()
