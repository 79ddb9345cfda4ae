"""FSDP, Lightning and timm treat CustomBatchNorm like torch's layer."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from batchnorm_helpers import largest_error, random_input
from torch import nn

from bnmodel import CustomBatchNorm

FULLY_SHARDED = """
import sys, copy, torch, torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch import nn
from bnmodel import CustomBatchNorm

dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 6), CustomBatchNorm(6), nn.Linear(6, 2))
expected, x = copy.deepcopy(network), torch.randn(8, 4)
mesh = torch.distributed.init_device_mesh("cpu", (1,))
for layer in network:
    fully_shard(layer, mesh=mesh)
fully_shard(network, mesh=mesh)
for model in (network, expected):
    model(x).square().sum().backward()
for sharded, whole in zip(network.parameters(), expected.parameters(), strict=True):
    torch.testing.assert_close(sharded.grad.full_tensor(), whole.grad)
torch.testing.assert_close(dict(network.named_buffers()), dict(expected.named_buffers()))
torch.testing.assert_close(network.eval()(x), expected.eval()(x))
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_fully_sharded_it_gives_the_same_gradients_and_statistics(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULLY_SHARDED, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_lightning_freezes_it_or_leaves_it_training() -> None:
    finetuning = pytest.importorskip("lightning.pytorch.callbacks", reason="needs lightning").BaseFinetuning
    for train_bn in (True, False):
        network = nn.Sequential(nn.Linear(4, 6), CustomBatchNorm(6))
        finetuning.freeze(network, train_bn=train_bn)
        assert not network[0].weight.requires_grad
        assert network[1].weight.requires_grad == network[1].bias.requires_grad == train_bn
        assert network[1].track_running_stats == train_bn


@pytest.mark.filterwarnings("ignore")
def test_timm_takes_it_as_norm_layer_freezes_it_and_loads_torchs_checkpoint() -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    torch.manual_seed(0)
    theirs = timm.create_model("resnet10t", num_classes=3).eval()
    ours = timm.create_model("resnet10t", num_classes=3, norm_layer=CustomBatchNorm).eval()
    assert sum(type(layer) is CustomBatchNorm for layer in ours.modules()) >= 10
    ours.load_state_dict(theirs.state_dict())
    x = random_input(0, 2, 3, 64, 64)
    assert largest_error(ours(x), theirs(x)) <= 1e-4
    frozen = timm.utils.model.freeze_batch_norm_2d(copy.deepcopy(ours))
    assert largest_error(frozen(x), theirs(x)) <= 1e-4
