"""Batch normalisation, written out.

    x̂ = (x − μ) / √(σ² + ε)        y = γ · x̂ + β

Per channel, over the batch and every spatial axis (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1).
:func:`batch_norm` is the mathematics; :class:`CustomBatchNorm` keeps the running statistics. Its gradient by hand, for
training: `batchnorm_step.py`; over a batch that several processes share: `synchronised.py`.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from bnmodel.nn.batchnorm_autograd import TrainingStep, at_least_float32
from bnmodel.nn.sync_batchnorm import processes, synchronised_batch_norm

# `Optional[...]` and no `from __future__ import annotations` here: torch.jit.script reads these annotations.


def batch_norm(
    x: Tensor,
    gamma: Optional[Tensor] = None,
    beta: Optional[Tensor] = None,
    mean: Optional[Tensor] = None,
    var: Optional[Tensor] = None,
    eps: float = 1e-5,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel of `x`; pure, differentiable (twice), and scriptable.

    Args:
        x: (N, C) or (N, C, *spatial), floating point, any memory format. Half precision is computed in float32.
        gamma, beta: (C,) scale and shift, or None for 1 and 0.
        mean, var: (C,) statistics to normalise with (inference), or None for those of this very batch (training).
        eps: added to the variance, > 0 unless no channel is constant.

    Returns:
        y, shaped and typed like `x`; the mean (C,) and the *biased* variance (C,) that were used, to be kept, not
        to be differentiated.
    """
    dtype = x.dtype
    if mean is None or var is None:  # noqa: SIM102
        if not torch.jit.is_scripting():  # noqa: SIM102 (a joint condition would be compiled)
            if not torch.compiler.is_compiling():
                return TrainingStep.apply(x, gamma, beta, eps)  # the same, and faster
    x = x.to(at_least_float32(dtype))
    if mean is None or var is None:
        axes = [0] + [axis for axis in range(2, x.dim())]
        var, mean = torch.var_mean(x, dim=axes, correction=0)  # (C,), (C,)
    # γ·(x − μ)/√(σ² + ε) + β as one multiply-add per element: x · scale + shift
    scale = torch.rsqrt(var + eps)  # (C,)
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale  # (C,)
    if beta is not None:
        shift = shift + beta
    per_channel = [1, x.size(1)] + [1] * (x.dim() - 2)
    y = torch.addcmul(shift.view(per_channel), x, scale.view(per_channel))
    return y.to(dtype), mean, var


class CustomBatchNorm(nn.Module):
    """Batch normalisation over axis 1, a drop-in for `torch.nn.BatchNorm1d`, `2d` and `3d` alike.

    Training mode normalises with the mean and biased variance of the batch and moves the running statistics,
    which store the *unbiased* variance:

        running ← (1 − momentum) · running + momentum · batch

    Eval mode normalises with the running statistics, so that an answer does not depend on the batch it came in.

    Args:
        num_features: C, the number of channels, ≥ 1.
        eps: added to the variance, ≥ 0.
        momentum: weight of the newest batch in [0, 1]; None for the cumulative average of all batches.
        affine: learn γ and β (parameters `gamma`, `beta`); otherwise they are 1 and 0.
        track_running_stats: keep running statistics; otherwise batch statistics are used in eval mode too.
        synchronised: in training mode, take the statistics over the batches of all processes of torch.distributed's
            group, as `torch.nn.SyncBatchNorm` does; alone, it changes nothing. Then the gradient is not to be
            differentiated again.
        device, dtype: of parameters and buffers. The running statistics never go below float32.

    Shape:
        (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W) → the same.

    Raises:
        ValueError: another number of axes or channels, or one value per channel where batch statistics are needed.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: Optional[float] = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Optional[torch.device] = None,
        dtype: Optional[torch.dtype] = None,
        synchronised: bool = False,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features: expected at least 1 channel, received {num_features}")
        if not eps >= 0:  # nor NaN
            raise ValueError(f"eps: expected a number ≥ 0, received {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(
                f"momentum: expected a number in [0, 1] or None for a cumulative average, received {momentum}"
            )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.synchronised = synchronised
        self.gamma = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None
        self.beta = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None
        self.running_mean: Optional[Tensor]
        self.running_var: Optional[Tensor]
        self.num_batches_tracked: Optional[Tensor]
        if track_running_stats:
            stats_dtype = at_least_float32(dtype or torch.get_default_dtype())
            self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=stats_dtype))
            self.register_buffer("running_var", torch.ones(num_features, device=device, dtype=stats_dtype))
            self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))
        else:
            self.register_buffer("running_mean", None)
            self.register_buffer("running_var", None)
            self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        self._check_shape(x)
        if not self.training and self.running_mean is not None:
            return batch_norm(x, self.gamma, self.beta, self.running_mean, self.running_var, self.eps)[0]
        if self.synchronised and self.training:  # noqa: SIM102
            if not torch.jit.is_scripting():  # noqa: SIM102 (a joint condition would be compiled)
                if processes() > 1:
                    return self._with_other_processes(x)
        values = x.numel() // self.num_features  # per channel
        self._check_count(values, x)
        y, mean, var = batch_norm(x, self.gamma, self.beta, None, None, self.eps)
        if self.training:
            self._update_running_stats(mean, var, values)
        return y

    @torch.jit.unused
    def _with_other_processes(self, x: Tensor) -> Tensor:
        y, mean, var, values = synchronised_batch_norm(x, self.gamma, self.beta, self.eps)
        self._check_count(values, x)
        self._update_running_stats(mean, var, values)
        return y

    def _check_count(self, values: int, x: Tensor) -> None:
        if values < 2:
            raise ValueError(
                f"batch statistics: expected at least 2 values per channel, received {values} from shape "
                f"{list(x.shape)}; use a larger batch, or eval() to use the running statistics"
            )

    def _update_running_stats(self, mean: Tensor, var: Tensor, values: int) -> None:
        """Move the running statistics towards a batch's mean and biased variance, (C,) each, of `values` values."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():  # else they would keep the graph of every batch alive
                self.num_batches_tracked.add_(1)
                # no momentum: the cumulative average, in which every batch counts the same
                weight = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                unbiased = var * (values / (values - 1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)

    def _check_shape(self, x: Tensor) -> None:
        if x.dim() < 2 or x.dim() > 5:
            raise ValueError(
                f"CustomBatchNorm: expected (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W), "
                f"received {x.dim()} axes, shape {list(x.shape)}"
            )
        if x.size(1) != self.num_features:
            raise ValueError(
                f"CustomBatchNorm: expected {self.num_features} channels on axis 1, received {x.size(1)}, "
                f"shape {list(x.shape)}"
            )

    def reset_running_stats(self) -> None:
        """Forget every batch: mean 0, variance 1, count 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Forget what was learned: γ = 1, β = 0, and the running statistics."""
        self.reset_running_stats()
        if self.gamma is not None and self.beta is not None:
            nn.init.ones_(self.gamma)
            nn.init.zeros_(self.beta)

    @classmethod
    def from_torch(cls, layer: nn.Module) -> "CustomBatchNorm":
        """The same layer as a `torch.nn.BatchNorm1d/2d/3d` or SyncBatchNorm: copied values, options, mode, device."""
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"from_torch: expected a torch.nn.BatchNorm1d, 2d or 3d, received {type(layer).__name__}")
        options = layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        new = cls(layer.num_features, *options, synchronised=isinstance(layer, nn.SyncBatchNorm))
        _copy(layer, new, {"weight": "gamma", "bias": "beta"})
        return new

    def to_torch(self, dimensions: int = 2) -> nn.Module:
        """The same layer as torch's own, for inputs of 1, 2 or 3 spatial `dimensions` (1 also takes (N, C)).

        `torch.nn.SyncBatchNorm.convert_sync_batchnorm` makes it synchronised where this one is.
        """
        if dimensions not in (1, 2, 3):
            raise ValueError(f"dimensions: expected 1, 2 or 3, received {dimensions}")
        layer = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]
        new = layer(self.num_features, self.eps, self.momentum, self.affine, self.track_running_stats)
        _copy(self, new, {"gamma": "weight", "beta": "bias"})
        return new

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        # `.half()` would round the statistics too, and at that precision a running average soon stops moving
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = self._buffers[name]
            if after is not None and after.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = before.to(after.device, torch.float32)
        return self

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
            f"{', synchronised=True' if self.synchronised else ''}"
        )


def _copy(source: nn.Module, target: nn.Module, renamed: dict[str, str]) -> None:
    """Copy parameters, buffers, dtype, device and mode between the two layers, whose names for γ and β differ."""
    state = {renamed.get(name, name): tensor for name, tensor in source.state_dict().items()}
    first = next(iter(state.values()), torch.empty(0))
    target.to(first.device, first.dtype if first.is_floating_point() else None)
    target.load_state_dict({**target.state_dict(), **state})  # torch's bias=False leaves β at 0
    target.train(source.training)
