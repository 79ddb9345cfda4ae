"""Rounding errors of CustomBatchNorm and of torch's layer on ill-conditioned inputs, relative to float64.

`python -m benchmarks.accuracy`. An error is the largest difference divided by the largest exact value.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import write
from bnmodel import CustomBatchNorm

Numbers = dict[str, Tensor]
ROWS: dict[str, tuple[tuple[int, ...], float, float, bool, torch.dtype]] = {
    "4,000,000 × 2": ((4_000_000, 2), 0.0, 1.0, False, torch.float32),
    "65,536 × 4, mean 1e4, std 1e-2": ((65_536, 4), 1e4, 1e-2, False, torch.float32),
    "64 × 8 × 32 × 32, channels last, mean 1e6, std 1": ((64, 8, 32, 32), 1e6, 1.0, True, torch.float32),
    "64 × 8 × 32 × 32, mean 1e6, std 1": ((64, 8, 32, 32), 1e6, 1.0, False, torch.float32),
    "64 × 8 × 32 × 32, mean 1e4, std 1": ((64, 8, 32, 32), 1e4, 1.0, False, torch.float32),
    "64 × 8 × 32 × 32, mean 3, std 1, bfloat16": ((64, 8, 32, 32), 3.0, 1.0, False, torch.bfloat16),
}


def batch(shape: tuple[int, ...], mean: float, std: float, channels_last: bool, dtype: torch.dtype) -> Tensor:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() * std + mean).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def numbers(layer: nn.Module, x: Tensor, mean: Tensor, var: Tensor) -> Numbers:
    """Output and running variance in train mode; gradient of γ in eval mode, with running statistics `mean`, `var`."""
    y = layer(x).detach()
    variance = layer.running_var.clone()  # type: ignore[operator]
    layer.eval()
    layer.running_mean.copy_(mean), layer.running_var.copy_(var)  # type: ignore[operator]
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    layer(x).backward(weights.to(dtype=x.dtype, memory_format=torch.preserve_format))
    return {"output": y, "running variance": variance, "gradient of γ, frozen": layer.weight.grad}


def error(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double() - exact).abs().max() / exact.abs().max())


def main() -> None:
    rows = []
    for name, arguments in ROWS.items():
        x = batch(*arguments)
        kind: Callable[..., nn.Module] = nn.BatchNorm1d if x.dim() == 2 else nn.BatchNorm2d
        axes = [0, *range(2, x.dim())]
        var, mean = (values.to(x.dtype) for values in torch.var_mean(x.double(), axes))
        exact = numbers(kind(x.size(1), momentum=1.0).double(), x.double(), mean, var)
        for layer, build in (("torch", kind), ("CustomBatchNorm", CustomBatchNorm)):
            given = numbers(build(x.size(1), momentum=1.0).to(x.dtype), x, mean, var)
            errors = {key: error(value, exact[key]) for key, value in given.items()}
            rows.append({"case": name, "layer": layer, "errors": errors})
            print(
                f"{name:52s} {layer:16s}", "  ".join(f"{key} {value:.1e}" for key, value in errors.items()), flush=True
            )
    write("accuracy", {"rows": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
