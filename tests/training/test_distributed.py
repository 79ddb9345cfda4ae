"""Two processes give the same statistics, gradients, training and files as one."""

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from training_helpers import forkserver

from bnmodel import CustomBatchNorm, SimpleCNNConfig, load_checkpoint
from bnmodel.data import load_sample
from bnmodel.training.distributed import loss_weight, own_part, synchronise
from bnmodel.training.recipes import FAST, Recipe
from bnmodel.training.trainer import Training, new_network

PROCESSES = 2
LAYER_CASES = {  # name → the sizes of both parts, synchronised
    "equal parts": ((4, 4), True),
    "unequal parts": ((5, 3), True),
    "one part empty": ((8, 0), True),
    "one value in a part": ((7, 1), True),
    "each for itself": ((5, 3), False),
}
RECIPE = Recipe("small", 2, 2, batch_size=16, learning_rate=0.05, momentum=0.9, model=SimpleCNNConfig(dropout=0.0))
Values = dict[str, Tensor]


def batch() -> Tensor:
    """(8, 3, 4, 1); its halves have different means and spreads."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 4, 1, generator=generator) * torch.linspace(0.5, 3, 8).view(-1, 1, 1, 1) + 5


def loss_of(outputs: Tensor, rows: Tensor) -> Tensor:
    """A sum over samples, so that parts add up to the whole, with different gradients for all outputs."""
    return (outputs.sin() * (1 + rows.view(-1, 1, 1, 1))).sum()


def layer_step(layer: CustomBatchNorm, part: slice) -> Values:
    x = batch()[part].requires_grad_()
    y = layer(x)
    loss_of(y, torch.arange(8.0)[part]).backward()
    assert x.grad is not None
    gradients = {
        f"gradient of {name}": value.grad for name, value in layer.named_parameters() if value.grad is not None
    }
    return {"output": y.detach(), "gradient of x": x.grad, **gradients, **dict(layer.named_buffers())}


def train_small() -> Values:
    """Four steps of 16, 16, 16 and 3 digits: every gradient, every weight and statistic, and the losses."""
    digits = load_sample(train=True)
    model, generator = new_network(RECIPE)
    training = Training(model, digits[:51], digits[100:150], RECIPE, "cpu", generator)
    values: Values = {}
    training.optimizer.register_step_pre_hook(
        lambda *_: values.update({f"{len(values)} {n}": p.grad.clone() for n, p in model.named_parameters()})
    )
    epoch = next(training.epochs())
    values["losses"] = torch.tensor([epoch.train_loss, epoch.validation_loss, epoch.train_accuracy])
    return {**values, **model.state_dict()}


def one_of_two(rank: int, folder: Path) -> None:
    """The work of each process, whose results are saved in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    results = {}
    for name, (sizes, synchronised) in LAYER_CASES.items():
        part = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], 8)
        results[name] = layer_step(CustomBatchNorm(3, synchronised=synchronised), part)
    layer = CustomBatchNorm(3, synchronised=True).eval()
    results["eval mode"] = {"output": layer(batch()[:1] * (rank + 1)).detach()}
    try:
        CustomBatchNorm(3, synchronised=True)(torch.zeros(1 - rank, 3))
    except ValueError as error:
        results["refused"] = {str(error): torch.zeros(0)}
    part = slice(0, 5) if rank == 0 else slice(5, 8)
    with FlopCounterMode(display=False):  # a dispatch mode
        results["counting FLOPs"] = layer_step(CustomBatchNorm(3, synchronised=True), part)
    try:
        torch.vmap(CustomBatchNorm(3, synchronised=True))(batch().unsqueeze(0))
    except RuntimeError as error:
        results["vmap"] = {str(error): torch.zeros(0)}
    results["training"] = train_small()
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Values], dict[str, Values]]:
    """The results of process 0 and of process 1."""
    folder = tmp_path_factory.mktemp("distributed")
    torch.multiprocessing.start_processes(one_of_two, (folder,), PROCESSES, start_method=forkserver.get_start_method())
    first, second = (torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES))
    return first, second


def together(first: Values, second: Values) -> Values:
    """Outputs and gradients of the input side by side; gradients of parameters added; statistics of the first."""
    side_by_side = {name: torch.cat((first[name], second[name])) for name in ("output", "gradient of x")}
    added = {name: first[name] + second[name] for name in ("gradient of weight", "gradient of bias")}
    return {**first, **side_by_side, **added}


def largest_difference(one: Values, other: Values) -> float:
    """Relative to the largest of each tensor, or to 1."""
    assert list(one) == list(other)
    return max(float((one[n] - other[n]).abs().max() / max(1, other[n].abs().max())) for n in other)


SYNCHRONISED = [name for name, (_, synchronised) in LAYER_CASES.items() if synchronised]


@pytest.mark.parametrize("name", [*SYNCHRONISED, "counting FLOPs"])
def test_synchronised_parts_have_the_outputs_gradients_and_statistics_of_the_whole(both, name: str) -> None:  # type: ignore[no-untyped-def]
    whole = layer_step(CustomBatchNorm(3), slice(0, 8))
    first, second = (results[name] for results in both)
    assert largest_difference(together(first, second), whole) <= 1e-6
    for statistic in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(first[statistic], second[statistic])


def test_parts_that_are_not_synchronised_differ_from_the_whole(both) -> None:  # type: ignore[no-untyped-def]
    whole = layer_step(CustomBatchNorm(3), slice(0, 8))
    apart = together(*(results["each for itself"] for results in both))
    for name in ("output", "gradient of x", "running_mean", "running_var"):
        assert (apart[name] - whole[name]).abs().max() > 0.01, name


def test_in_eval_mode_nothing_is_shared(both) -> None:  # type: ignore[no-untyped-def]
    for rank, results in enumerate(both):
        expected = CustomBatchNorm(3).eval()(batch()[:1] * (rank + 1))
        assert torch.equal(results["eval mode"]["output"], expected)


def test_a_transform_of_a_synchronised_layer_is_refused(both) -> None:  # type: ignore[no-untyped-def]
    for results in both:
        assert "expected synchronised=False" in next(iter(results["vmap"]))


def test_one_value_per_channel_in_all_processes_together_is_refused(both) -> None:  # type: ignore[no-untyped-def]
    for results in both:
        (message,) = results["refused"]
        assert "at least 2 values per channel, received 1" in message


def test_a_training_on_two_processes_has_the_gradients_weights_statistics_and_losses_of_one(both) -> None:  # type: ignore[no-untyped-def]
    alone = train_small()
    first, second = (results["training"] for results in both)
    assert len(alone) > 4 * 12
    assert largest_difference(first, alone) <= 1e-6
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_torchrun_trains_and_the_first_process_alone_prints_and_writes(tmp_path: Path) -> None:
    command = ["-m", "bnmodel", "train", "--recipe", "fast", "--dataset", "sample", "--epochs", "1", "--device", "cpu"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*launcher, *command, "--out", str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("800 digits for training") == finished.stdout.count("best validation loss") == 1
    assert {file.name for file in tmp_path.iterdir()} == {
        "best.pt",
        "history.json",
        "training.pt",
        "loss_curves.png",
        ".lock",
    }
    assert json.loads((tmp_path / "history.json").read_text())["recipe"]["batch_size"] == FAST.batch_size
    assert load_checkpoint(tmp_path).model.block1.norm.num_batches_tracked == -(-800 // FAST.batch_size)


@pytest.mark.parametrize("given", [True, False], ids=["generator given", "generator made"])
def test_every_process_draws_its_own_dropout_and_augmentation_but_the_same_order_of_the_digits(
    given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits, draws, orders = load_sample(train=True), [], []
    for rank in range(3):
        monkeypatch.setattr("bnmodel.training.distributed.rank", lambda rank=rank: rank)
        model, generator = new_network(RECIPE)
        training = Training(model, digits[:51], digits[100:150], RECIPE, "cpu", generator if given else None)
        draws.append(torch.rand(5, generator=training.random).tolist())
        orders.append(torch.randperm(51, generator=training.shuffling).tolist())
    assert len({tuple(draw) for draw in draws}) == 3
    assert orders[0] == orders[1] == orders[2]


# --- one process -----------------------------------------------------------------------------------------------------


def test_in_one_process_a_synchronised_layer_is_like_any_other() -> None:
    one, other = (layer_step(CustomBatchNorm(3, synchronised=option), slice(0, 8)) for option in (True, False))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_synchronise_switches_every_batch_norm_of_a_network() -> None:
    network = synchronise(nn.Sequential(CustomBatchNorm(3), nn.Sequential(nn.ReLU(), CustomBatchNorm(3))))
    assert repr(network).count("synchronised=True") == 2


def test_a_sync_batch_norm_of_torch_becomes_a_synchronised_layer() -> None:
    assert CustomBatchNorm.from_torch(nn.SyncBatchNorm(3)).synchronised
    assert not CustomBatchNorm.from_torch(nn.BatchNorm2d(3)).synchronised


def test_in_one_process_a_batch_is_one_part_with_weight_1() -> None:
    assert torch.equal(own_part(torch.arange(5)), torch.arange(5))
    assert loss_weight(5, of=5) == 1.0


def test_a_synchronised_layer_can_be_copied_pickled_and_scripted() -> None:
    layer = CustomBatchNorm(3, synchronised=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(copy.deepcopy(layer))
    copied = pickle.loads(pickle.dumps(layer))
    assert copied.synchronised
    expected = layer(batch())
    torch.testing.assert_close(script(batch()), expected)
    assert torch.equal(copied(batch()), expected)
