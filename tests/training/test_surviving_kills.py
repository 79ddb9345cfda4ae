"""Runs that are killed, run out of disk or share a folder keep their finished epochs and can be resumed.

Each run is a process, forked from one that has already imported the libraries.
"""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from training_helpers import forkserver

from bnmodel import CheckpointError, SimpleCNNConfig, load_checkpoint
from bnmodel.__main__ import main
from bnmodel.data import load_offline_digits, split
from bnmodel.io import TEMPORARY, folder_lock, read_checked
from bnmodel.training import fit, train_from_scratch
from bnmodel.training.recipes import Recipe
from bnmodel.training.trainer import new_network

resource = pytest.importorskip("resource", reason="limits on file sizes and SIGINT need POSIX")

RECIPE = Recipe(
    "short", epochs=60, patience=60, learning_rate=0.05, momentum=0.9, schedule="one_cycle",
    model=SimpleCNNConfig(channels=(3, 4), hidden=8),
)  # fmt: skip
LONG = dataclasses.replace(RECIPE, epochs=10_000, patience=10_000, schedule="constant")
KILLS = 20


def train(out: Path, recipe: Recipe, told: Connection, most_bytes: int | None = None) -> None:
    """Train in this process; send 0 at the start, the number of each saved epoch, and any error."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore SIGINT by default
    if most_bytes is not None:  # per file; larger writes then fail as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    training, validation = split(load_offline_digits(True))
    model, generator = new_network(recipe)
    told.send(0)
    try:
        fit(
            model, training[:200], validation[:50], recipe, "digits", out, resume=True, device="cpu", progress=False,
            on_epoch=lambda epoch: told.send(epoch.epoch), generator=generator,
        )  # fmt: skip
    except Exception as error:
        told.send(f"{type(error).__name__}: {error}")


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[multiprocessing.Process, Connection]]]:
    """A function that starts a run and returns once it trains."""
    processes = []

    def begin(out: Path, recipe: Recipe = RECIPE, most_bytes: int | None = None):  # type: ignore[no-untyped-def]
        ours, theirs = forkserver.Pipe(duplex=False)
        process = forkserver.Process(target=train, args=(out, recipe, theirs, most_bytes))
        process.start()
        theirs.close()
        processes.append(process)
        assert ours.recv() == 0
        return process, ours

    yield begin
    for process in processes:
        process.kill()
        process.join()


def messages(told: Connection) -> list[object]:
    """All messages until the process ends."""
    found = []
    try:
        while True:
            found.append(told.recv())
    except EOFError:
        return found


def without_seconds(folder: Path) -> dict:
    history = read_checked(folder / "history.json")
    for epoch in history["epochs"]:
        del epoch["seconds"]
    return history


def epochs_in(folder: Path) -> int:
    file = folder / "training.pt"
    return len(torch.load(file, weights_only=True)["epochs"]) if file.exists() else 0


def test_killed_twenty_times_it_loses_at_most_an_epoch_each_time_and_ends_with_the_same_weights(
    start, tmp_path: Path
) -> None:
    process, told = start(tmp_path / "whole")
    began = time.monotonic()
    assert messages(told)[-1] == RECIPE.epochs
    process.join()
    seconds = time.monotonic() - began

    chance, reached, cut_short = random.Random(0), 0, 0
    for _ in range(KILLS):
        process, told = start(tmp_path / "parts")
        time.sleep(chance.uniform(0, 1.5 * seconds / KILLS))
        process.kill()  # signal 9
        process.join()
        saved = epochs_in(tmp_path / "parts")
        assert saved >= max([reached, *messages(told)])  # reported epochs are saved
        cut_short += saved < RECIPE.epochs
        reached = saved
    assert cut_short >= KILLS / 2  # killed during training
    process, told = start(tmp_path / "parts")
    messages(told)
    process.join()

    assert without_seconds(tmp_path / "parts") == without_seconds(tmp_path / "whole")
    for file in ("best.pt", "training.pt"):
        one, other = (torch.load(tmp_path / folder / file, weights_only=True) for folder in ("whole", "parts"))
        states = (
            [(one["state"], other["state"])] if file == "best.pt" else [(one[k], other[k]) for k in ("model", "best")]
        )
        for mine, theirs in states:
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not list((tmp_path / "parts").glob(f"{TEMPORARY}*"))


def test_a_full_disk_is_an_actionable_error_keeps_earlier_epochs_and_can_be_resumed(start, tmp_path: Path) -> None:
    three, six = (dataclasses.replace(RECIPE, epochs=epochs, schedule="constant") for epochs in (3, 6))
    _, told = start(tmp_path, three)
    assert messages(told) == [1, 2, 3]
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    _, told = start(tmp_path, six, most_bytes=1000)
    (said,) = messages(told)
    assert "cannot be written (File too large); free some space" in str(said)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    _, told = start(tmp_path, six)
    assert messages(told) == [4, 5, 6]


def test_a_second_training_in_the_same_folder_is_refused_until_the_first_ends(start, tmp_path: Path) -> None:
    first, told = start(tmp_path, LONG)
    assert told.recv() == 1
    _, said = start(tmp_path, LONG)
    (refusal,) = messages(said)
    assert refusal.startswith("BlockingIOError")
    assert "another training is writing to this folder" in refusal
    first.kill()
    first.join()
    _, said = start(tmp_path, LONG)
    assert said.recv() >= 2  # it has the lock, and resumes


def test_temporary_files_of_a_killed_process_are_deleted(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}best-x.pt").write_bytes(b"half")
    with folder_lock(tmp_path):
        assert not list(tmp_path.glob(f"{TEMPORARY}*"))


def test_a_folder_that_is_not_writable_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["train", "--dataset", "digits", "--out", str(tmp_path / "file" / "out"), "--epochs", "1"]) == 1
    printed = capsys.readouterr().err
    assert "cannot be written (Not a directory); free some space, or use a writable folder" in printed
    assert "epoch" not in printed


@pytest.mark.parametrize("second", [0.0, 0.01, 0.1])
def test_ctrl_c_twice_keeps_the_finished_epochs(second: float, start, tmp_path: Path) -> None:
    process, told = start(tmp_path, LONG)
    while told.recv() < 3:
        pass
    os.kill(process.pid, signal.SIGINT)
    time.sleep(second)
    if process.is_alive():
        os.kill(process.pid, signal.SIGINT)
    saved = max([3, *(told_of for told_of in messages(told) if isinstance(told_of, int))])
    process.join()
    assert epochs_in(tmp_path) >= saved
    history = json.loads((tmp_path / "history.json").read_text())
    best = load_checkpoint(tmp_path)
    assert best.results["epoch"] in (history["best_epoch"], len(history["epochs"]) + 1)
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


@pytest.mark.parametrize("entry", ["recipe", "epochs", "model", "best", "optimizer", "shuffling", "waited"])
def test_a_training_of_another_version_is_an_actionable_error(entry: str, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=1)
    digits = split(load_offline_digits(True))
    few = digits[0][:64], digits[1][:20]
    train_from_scratch(recipe, *few, "digits", tmp_path, progress=False)
    content = torch.load(tmp_path / "training.pt", weights_only=True)
    content["something new"] = content.pop(entry)
    torch.save(content, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match=r"training\.pt: expected a run that this version can resume"):
        train_from_scratch(recipe, *few, "digits", tmp_path, resume=True, progress=False)
