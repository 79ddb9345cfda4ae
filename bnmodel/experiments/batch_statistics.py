"""The batch norms of a network, and copies of it that use batch statistics as in train mode."""

import copy

import torch
from torch import Tensor, nn

from bnmodel.nn.batchnorm import CustomBatchNorm, batch_norm

AT_ONCE = 32  # images whose squares are held at the same time


def custom_batchnorms(model: nn.Module) -> dict[str, CustomBatchNorm]:
    """The batch norms of `model`, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CustomBatchNorm)}


def named_norm(model: nn.Module, name: str | None) -> tuple[str, CustomBatchNorm]:
    """The batch norm called `name`, by default the first, and its name.

    Raises:
        ValueError: an unknown name, or no batch norm.
    """
    norms = custom_batchnorms(model)
    if not norms:
        raise ValueError("norm: this network has no batch norm; use a checkpoint trained with batch norm")
    name = name or next(iter(norms))
    if name not in norms:
        raise ValueError(f"norm: expected one of {', '.join(norms)}, received {name!r}")
    return name, norms[name]


def in_eval_mode(model: nn.Module) -> nn.Module:
    """`model` itself if it is in eval mode, else a copy in eval mode."""
    return copy.deepcopy(model).eval() if any(module.training for module in model.modules()) else model


def with_batch_statistics(model: nn.Module, batches: int = 1) -> nn.Module:
    """A copy of `model` in eval mode whose batch norms use batch statistics. It shares the parameters of `model`.

    Args:
        batches: the input is the concatenation of this many batches of equal size, each with its own statistics.
    """
    return _with_batch_statistics(model, batches).eval()


def _with_batch_statistics(module: nn.Module, batches: int) -> nn.Module:
    if isinstance(module, CustomBatchNorm):
        return _BatchStatistics(module, batches)
    copied = copy.copy(module)  # `deepcopy` would take longer than a small batch
    copied._modules = {
        name: None if child is None else _with_batch_statistics(child, batches)
        for name, child in module._modules.items()
    }
    return copied


def unbiased_statistics(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and unbiased variances, (batches, C) each, of the last call of a network from `with_batch_statistics`."""
    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, _BatchStatistics)}
    return {name: (norm.mean, norm.var * (norm.count / (norm.count - 1))) for name, norm in norms.items()}


class _BatchStatistics(nn.Module):
    """Normalises each batch with its own statistics, which it keeps.

    Attributes:
        mean, var: of the last call, biased, (batches, C).
        count: values per batch and channel.
    """

    mean: Tensor
    var: Tensor
    count: int

    def __init__(self, norm: CustomBatchNorm, batches: int) -> None:
        super().__init__()
        self.gamma, self.beta, self.eps, self.batches = norm.gamma, norm.beta, norm.eps, batches

    def forward(self, x: Tensor) -> Tensor:
        if self.batches == 1:
            y, mean, var = batch_norm(x, self.gamma, self.beta, eps=self.eps)
            self.mean, self.var, self.count = mean[None], var[None], x.numel() // x.size(1)
            return y
        # `batch_norm` with an axis for the batch, without a copy to (N, B·C, …): (B·N, C, H·W) → (B, N, C, H·W)
        batches = (x if x.dim() > 2 else x[:, :, None]).unflatten(0, (self.batches, -1)).flatten(3)
        count = batches.size(1) * batches.size(3)
        mean = batches.sum(3, keepdim=True).sum(1, keepdim=True) / count  # (B, 1, C, 1)
        centred = batches - mean
        # with channels last, `vector_norm` takes five times longer; the squares of all at once leave the cache
        parts = centred.split(max(1, AT_ONCE // batches.size(1)))
        var = torch.cat([part.square().sum(3, keepdim=True).sum(1, keepdim=True) for part in parts]) / count
        self.mean, self.var, self.count = mean.flatten(1), var.flatten(1), count
        scale = torch.rsqrt(var + self.eps)
        if self.gamma is not None:
            scale = scale * self.gamma[:, None]
        shift = torch.zeros_like(scale) if self.beta is None else self.beta[:, None]
        return torch.addcmul(shift, centred, scale, out=centred).view_as(x)


def norm_inputs(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities (N, 10), and the input of each batch norm by name. Registers hooks: pass a private copy."""
    inputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, (CustomBatchNorm, _BatchStatistics)):
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0]))
    return model(images), inputs
