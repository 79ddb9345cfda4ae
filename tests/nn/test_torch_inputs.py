"""PyTorch's own inputs for batch norm (ModuleInfo, OpInfo), given to CustomBatchNorm."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from bnmodel import CustomBatchNorm, batch_norm

LAYERS = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}


def module_cases(training: bool, dtype: torch.dtype, requires_grad: bool = False) -> list:
    cases = []
    for info in module_db:
        if info.module_cls in LAYERS:
            inputs = info.module_inputs_func(info, "cpu", dtype, requires_grad, training)
            cases += [pytest.param(info.module_cls, case, id=f"{info.name}-{k}") for k, case in enumerate(inputs)]
    return cases


def layers(kind: type[nn.Module], case, dtype: torch.dtype, training: bool) -> tuple[nn.Module, nn.Module]:  # type: ignore[no-untyped-def]
    arguments = case.constructor_input
    theirs = kind(*arguments.args, **{"dtype": dtype, **arguments.kwargs}).train(training)
    ours = CustomBatchNorm(*arguments.args, **{"dtype": dtype, **arguments.kwargs}).train(training)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_module_configuration_gives_torchs_outputs_gradients_and_statistics(
    dtype: torch.dtype, training: bool
) -> None:
    for case in module_cases(training, dtype):
        kind, inputs = case.values
        results = []
        for layer in layers(kind, inputs, dtype, training):
            x = inputs.forward_input.args[0].detach().clone().requires_grad_()
            y = layer(x)
            y.sin().sum().backward()
            results.append([y, x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5, msg=lambda text, case=case: f"{case.id}: {text}")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_every_module_configuration_passes_gradcheck(check, training: bool) -> None:  # type: ignore[no-untyped-def]
    for case in module_cases(training, torch.float64):
        kind, inputs = case.values
        x = inputs.forward_input.args[0].detach()[:3]
        layer, _ = layers(kind, inputs, torch.float64, training)
        layer.momentum = 0.0  # finite differences call it many times
        names = [name for name, _ in layer.named_parameters()]

        def of(x: Tensor, *parameters: Tensor, layer=layer, names=names) -> Tensor:  # type: ignore[no-untyped-def]
            return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

        values = [tensor.detach().clone().requires_grad_() for tensor in (x, *layer.parameters())]
        options = {"check_forward_ad": True} if check is torch.autograd.gradcheck else {}
        assert check(of, values, check_batched_grad=True, fast_mode=True, **options), case.id


def op_cases() -> list[tuple[Tensor, ...]]:
    """x, weight, bias, running mean, running variance, training, eps of every OpInfo sample.

    Left out: samples with one axis, (0,), which torch's function takes and no layer does.
    """
    (info,) = (info for info in op_db if info.name == "nn.functional.batch_norm" and not info.variant_test_name)
    cases = []
    for sample in info.sample_inputs("cpu", torch.float64, requires_grad=False):
        mean, var, *rest = sample.args
        options = dict(zip(("weight", "bias", "training"), rest, strict=False)) | sample.kwargs
        if sample.input.dim() > 1:
            training = options.get("training", False)
            statistics = (None, None) if training else (mean, var)
            values = (sample.input, options.get("weight"), options.get("bias"), *statistics)
            cases.append((values, options.get("eps", 1e-5)))
    return cases


def test_every_op_sample_gives_torchs_output_and_forward_and_reverse_derivatives() -> None:
    cases = op_cases()
    assert len(cases) >= 10
    for values, eps in cases:
        x, weight, bias, mean, var = values
        given = [value for value in values if value is not None]

        def ours(*tensors: Tensor, values=values, eps=eps) -> Tensor:  # type: ignore[no-untyped-def]
            rest = iter(tensors)
            return batch_norm(*(None if value is None else next(rest) for value in values), eps=eps)[0]

        expected = nn.functional.batch_norm(x, mean, var, weight, bias, training=mean is None, eps=eps)
        torch.testing.assert_close(ours(*given), expected)
        if x.numel():
            tangents = tuple(torch.ones_like(value) / 3 for value in given)
            _, forward = torch.func.jvp(ours, tuple(given), tangents)
            gradients = torch.func.vjp(ours, *given)[1](torch.ones_like(expected))
            along = sum(((g * t).sum() for g, t in zip(gradients, tangents, strict=True)), torch.tensor(0.0))
            torch.testing.assert_close(forward.sum(), along.to(forward.dtype), rtol=1e-6, atol=1e-6)
