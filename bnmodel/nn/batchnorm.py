"""Batch normalisation, written out.

    x̂ = (x − μ) / √(σ² + ε)        y = γ · x̂ + β

Per channel, over the batch and every spatial axis (Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1).
:func:`batch_norm` is the mathematics; :class:`CustomBatchNorm` keeps the running statistics. The gradient is in
`batchnorm_autograd.py`, synchronisation over processes in `sync_batchnorm.py`, conversion in `convert.py`.
"""

from numbers import Integral
from typing import Optional, Tuple

import torch
from torch import Tensor, fx, nn

from bnmodel.nn.batchnorm_autograd import BatchNormStep, normalise, scales, statistics, transformed
from bnmodel.nn.batchnorm_checks import check_arguments, check_input, require_two_values
from bnmodel.nn.sync_batchnorm import pool_statistics, processes

# `Optional[...]` and no `from __future__ import annotations` here: torch.jit.script reads these annotations.


def batch_norm(
    x: Tensor,
    gamma: Optional[Tensor] = None,
    beta: Optional[Tensor] = None,
    mean: Optional[Tensor] = None,
    var: Optional[Tensor] = None,
    eps: float = 1e-5,
) -> Tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel of `x`; pure, scriptable, and differentiable any number of times.

    Args:
        x: (N, C) or (N, C, *spatial), floating point, any memory format. Half precision is computed in float32.
        gamma, beta: (C,) scale and shift, or None for 1 and 0.
        mean, var: (C,) statistics to normalise with (inference), or None for those of this batch (training).
        eps: added to the variance; > 0 where a channel may be constant.

    Returns:
        y, shaped and typed like `x`; the mean (C,) and the *biased* variance (C,) that were used. In training their
        gradients are not defined.

    Raises:
        TypeError: `x` is not floating point.
        ValueError: an argument that is not (C,), only one of `mean` and `var`, or one value per channel in training.
    """
    check_arguments([gamma, beta, mean, var], x)
    if mean is None and x.numel() == 0:  # an empty batch has no statistics
        mean, var = x.new_zeros(x.size(1)), x.new_ones(x.size(1))
    if mean is None:
        require_two_values(x.numel() // x.size(1), x)
    if not torch.jit.is_scripting():  # noqa: SIM102 (a joint condition would be compiled)
        if not (torch.jit.is_tracing() or transformed(x)):
            count = 0
            if mean is None or var is None:
                count, (mean, var) = x.numel() // x.size(1), statistics(x)
            elif not torch.is_grad_enabled():
                return normalise(x, scales(gamma, var, eps, x)[0], beta, mean), mean, var
            return BatchNormStep.apply(x, gamma, beta, mean, var, eps, count, False), mean, var
    dtype = x.dtype
    x = x.to(torch.promote_types(dtype, torch.float32))
    multiply_add = mean is not None and not (torch.is_grad_enabled() or torch.jit.is_tracing())  # same graph twice
    per_channel = [1, x.size(1)] + [1] * (x.dim() - 2)
    if mean is None or var is None:
        axes = [0] + [axis for axis in range(2, x.dim())]
        mean = x.mean(axes)  # (C,)
        pivot = mean.detach()  # for any p, σ² = mean (x − p)² − (μ − p)²; with p = μ the gradient needs no sum over x
        var = (x - pivot.view(per_channel)).square().mean(axes) - (mean - pivot).square()  # (C,)
    scale = torch.rsqrt(var + eps)  # (C,)
    if gamma is not None:
        scale = scale * gamma
    if multiply_add:
        shift = -mean * scale if beta is None else beta - mean * scale  # (C,)
        y = torch.addcmul(shift.view(per_channel), x, scale.view(per_channel))
    else:  # in x · scale + shift, ∂L/∂γ would lose digits to cancellation where μ is far from 0
        y = (x - mean.view(per_channel)) * scale.view(per_channel)
        y = y if beta is None else y + beta.view(per_channel)
    return y.to(dtype), mean, var


class CustomBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over axis 1, a drop-in for `torch.nn.BatchNorm1d`, `2d` and `3d` alike.

    Training mode normalises with the mean and biased variance of the batch and moves the running statistics,
    which store the *unbiased* variance:

        running ← (1 − momentum) · running + momentum · batch

    Eval mode normalises with the running statistics, so that an output does not depend on the rest of the batch.

    The class derives from torch's `_BatchNorm`, so that tools recognise it and state dicts load in both directions.
    Forward pass, gradient and statistics are its own. γ and β are the parameters `weight` and `bias`.

    Args:
        num_features: C, the number of channels, an integer ≥ 1.
        eps: added to the variance, ≥ 0.
        momentum: weight of the newest batch in [0, 1]; None for the cumulative average of all batches.
        affine: learn γ and β; otherwise they are 1 and 0.
        track_running_stats: keep running statistics; if False, eval mode uses batch statistics too.
        synchronised: in training mode, use the statistics over the batches of all processes of torch.distributed's
            default group, as `torch.nn.SyncBatchNorm` does. The gradient then cannot be differentiated again.
        bias: learn β; otherwise it is 0. Ignored where `affine` is False.
        device, dtype: of parameters and buffers. The running statistics never go below float32.

    Shape:
        (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W) → the same.

    Raises:
        TypeError: the input is not real floating point.
        ValueError: wrong number of axes or channels, or one value per channel where batch statistics are needed.
    """

    __jit_unused_properties__ = ["gamma", "beta"]  # noqa: RUF012 (TorchScript looks for a list)

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
        *,
        bias: bool = True,
    ) -> None:
        if not isinstance(num_features, (int, Integral)):
            raise TypeError(f"num_features: expected an integer, received {num_features!r}; for example width // 2")
        if num_features < 1:
            raise ValueError(f"num_features: expected at least 1 channel, received {num_features}")
        if not eps >= 0:  # nor NaN
            raise ValueError(f"eps: expected a number ≥ 0, received {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum: expected a number in [0, 1], or None for an average, received {momentum}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:
            self.register_parameter("bias", None)
        self.synchronised = synchronised
        self.torch_type = ""  # name of the torch class from which it was converted
        to_float32(self._buffers)

    @property
    def gamma(self) -> Optional[nn.Parameter]:
        """γ, the lecture's name for `weight`."""
        return self.weight

    @property
    def beta(self) -> Optional[nn.Parameter]:
        """β, the lecture's name for `bias`."""
        return self.bias

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 (a joint condition would be compiled)
            if isinstance(input, fx.Proxy):  # torch.fx.symbolic_trace: one node, as for torch's own layer
                return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), (input,), {})
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return batch_norm(input, self.weight, self.bias, self.running_mean, self.running_var, self.eps)[0]
        if self.synchronised and self.training:  # noqa: SIM102
            if not torch.jit.is_scripting():  # noqa: SIM102
                if processes() > 1:
                    return self._with_other_processes(input)
        y, mean, var = batch_norm(input, self.weight, self.bias, None, None, self.eps)
        if self.training:
            self._update_running_stats(mean.detach(), var.detach(), input.numel() // self.num_features)
        return y

    @torch.jit.unused
    def _with_other_processes(self, x: Tensor) -> Tensor:
        if torch._C._are_functorch_transforms_active():
            raise RuntimeError("CustomBatchNorm: expected synchronised=False in torch.func's transforms, received True")
        count, mean, var = pool_statistics(x.numel() // self.num_features, *statistics(x))
        require_two_values(count, x)
        self._update_running_stats(mean, var, count)
        y: Tensor = BatchNormStep.apply(x, self.weight, self.bias, mean, var, self.eps, count, True)
        return y

    def _update_running_stats(self, mean: Tensor, var: Tensor, values: int) -> None:
        """Update the running statistics with a batch's mean and biased variance, (C,) each, of `values` values.

        As in torch, an empty batch is counted but changes no statistic.
        """
        if not self.track_running_stats:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if values > 0 and self.running_mean is not None and self.running_var is not None:
            unbiased = var * (values / (values - 1))
            mean, unbiased = mean.to(self.running_mean.dtype), unbiased.to(self.running_var.dtype)
            if self.momentum is not None:
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
            elif self.num_batches_tracked is not None:  # cumulative average: equal weights for all batches
                share = self.num_batches_tracked.to(mean.dtype).reciprocal()
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(unbiased, share)

    def _check_input_dim(self, input: Tensor) -> None:
        check_input(input, self.num_features)

    @classmethod
    def from_torch(cls, layer: nn.Module) -> "CustomBatchNorm":
        """A copy of a `torch.nn.BatchNorm1d`, `2d`, `3d` or `SyncBatchNorm`; whole models: `convert_batchnorm`."""
        from bnmodel.nn.convert import from_torch  # which imports this module

        return from_torch(layer, cls)

    def to_torch(self, dimensions: int = 2) -> nn.Module:
        """A copy as torch's BatchNorm1d, 2d or 3d, by the number of spatial `dimensions`; not synchronised."""
        from bnmodel.nn.convert import to_torch

        return to_torch(self, dimensions)

    def _load_from_state_dict(self, state_dict, prefix, *args):  # type: ignore[no-untyped-def]
        for old, name in (("gamma", "weight"), ("beta", "bias")):  # names in older checkpoints
            if prefix + old in state_dict:
                state_dict.setdefault(prefix + name, state_dict.pop(prefix + old))
        super()._load_from_state_dict(state_dict, prefix, *args)
        to_float32(self._buffers)  # `assign=True` keeps the dtypes of the state dict

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        # `.half()` would convert the statistics too; in half precision, running averages stop changing
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        to_float32(self._buffers, kept)
        return self

    def extra_repr(self) -> str:
        described = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{described}{', synchronised=True' if self.synchronised else ''}"


def to_float32(buffers: dict[str, Optional[Tensor]], values: Optional[dict[str, Optional[Tensor]]] = None) -> None:
    """Replace half-precision statistics by float32 ones, with the values of `values` if given."""
    for name in ("running_mean", "running_var"):
        buffer = buffers.get(name)
        if buffer is not None and buffer.dtype in (torch.float16, torch.bfloat16):
            value = (values or buffers)[name]
            assert value is not None
            buffers[name] = value.to(buffer.device, torch.float32)
