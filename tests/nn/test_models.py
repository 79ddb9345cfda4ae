"""The networks, against parameter counts by hand and the same networks of torch's layers."""

import dataclasses
import json
import warnings

import pytest
import torch
from torch import Tensor, nn

from bnmodel import CustomBatchNorm, SimpleCNN, SimpleCNNConfig, SimpleMLP, SimpleMLPConfig
from bnmodel.nn.init import INITIALIZERS
from bnmodel.nn.models import NORM_PLACES, RobustCNN, RobustCNNConfig


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def trained_like(config: SimpleCNNConfig, seed: int = 0) -> SimpleCNN:
    """A network whose batch norms are far from the identity, so that their position and statistics matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SimpleCNN(config)
        for module in model.modules():
            if isinstance(module, CustomBatchNorm):
                nn.init.normal_(module.gamma)  # of either sign: max-pool and norm do not commute
                nn.init.normal_(module.beta)
        for step in range(5):
            model.train()(images(16, step))
    return model.eval()


def of_torchs_layers(model: SimpleCNN) -> nn.Sequential:
    """The lecture's network, layer by layer from its description, with the weights of `model`."""
    layers: list[nn.Module] = []
    for block in (model.block1, model.block2):
        pool_and_relu = [nn.MaxPool2d(2), nn.ReLU()]
        norm = [] if model.config.norm == "none" else [block.norm.to_torch(2)]
        ordered = [*norm, *pool_and_relu] if model.config.norm == "before" else [*pool_and_relu, *norm]
        layers += [block.conv, *ordered, nn.Dropout(model.config.dropout)]
    layers += [nn.Flatten(), model.dense1, nn.ReLU(), model.dense2, nn.LogSoftmax(dim=1)]
    return nn.Sequential(*layers)


# --- SimpleCNN -------------------------------------------------------------------------------------------------------


def test_the_lectures_network_has_21900_parameters() -> None:
    convolutions = (1 * 10 * 5 * 5 + 10) + (10 * 20 * 5 * 5 + 20)
    norms = 2 * 10 + 2 * 20
    dense = (20 * 4 * 4 * 50 + 50) + (50 * 10 + 10)
    assert convolutions + norms + dense == 21_900
    assert sum(parameter.numel() for parameter in SimpleCNN().parameters()) == 21_900


def test_without_batch_norm_it_has_60_parameters_less_and_no_buffers() -> None:
    model = SimpleCNN(SimpleCNNConfig(norm="none"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_900 - 60
    assert not list(model.buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORM_PLACES)
def test_it_equals_the_same_network_made_of_torchs_layers(norm: str, training: bool) -> None:
    model = trained_like(SimpleCNNConfig(norm=norm, dropout=0.0))
    reference = of_torchs_layers(model).train(training)
    torch.testing.assert_close(model.train(training)(images(8)), reference(images(8)), rtol=1e-5, atol=1e-5)


def test_dropout_drops_the_configured_share_behind_the_norm_while_training() -> None:
    model = trained_like(SimpleCNNConfig(dropout=0.25)).train()
    dropped: list[float] = []
    for block in (model.block1, model.block2):
        block.dropout.register_forward_hook(
            lambda _, given, y: dropped.append(((y == 0) & (given[0] != 0)).float().mean())
        )
    model(images(64))
    assert len(dropped) == 2
    assert all(abs(share - 0.25) < 0.02 for share in dropped)


def test_the_default_dropout_is_the_lectures_half_and_eval_mode_drops_nothing() -> None:
    assert SimpleCNNConfig().dropout == 0.5
    model = trained_like(SimpleCNNConfig())
    assert torch.equal(model(images(4)), model(images(4)))


@pytest.mark.parametrize("norm", NORM_PLACES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images_gives_ten_log_probabilities_each(count: int, norm: str) -> None:
    log_probs = trained_like(SimpleCNNConfig(norm=norm))(images(count))
    assert log_probs.shape == (count, 10)
    assert (log_probs <= 0).all()
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(count))


def test_channels_and_hidden_size_set_the_widths() -> None:
    model = SimpleCNN(SimpleCNNConfig(channels=(3, 7), hidden=11))
    assert model.block1.conv.weight.shape == (3, 1, 5, 5)
    assert model.block2.conv.weight.shape == (7, 3, 5, 5)
    assert model.dense1.weight.shape == (11, 7 * 16)
    assert (model.block1.norm.num_features, model.block2.norm.num_features) == (3, 7)
    assert model.eval()(images(2)).shape == (2, 10)


def test_in_eval_mode_an_output_does_not_depend_on_the_rest_of_its_batch() -> None:
    model, batch = trained_like(SimpleCNNConfig()), images(8)
    alone = torch.cat([model(image) for image in batch.split(1)])
    torch.testing.assert_close(model(batch), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORM_PLACES)
def test_the_norm_inputs_are_those_that_a_hook_sees(norm: str, training: bool) -> None:
    model = trained_like(SimpleCNNConfig(norm=norm, dropout=0.0)).train(training)
    seen = {}
    for name in ("block1.norm", "block2.norm"):
        model.get_submodule(name).register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    log_probs, norm_inputs = model.forward_with_norm_inputs(images(4))
    assert list(norm_inputs) == list(seen) == ["block1.norm", "block2.norm"]
    assert all(torch.equal(norm_inputs[name], seen[name]) for name in seen)
    torch.testing.assert_close(log_probs, model(images(4)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "first", "second"), [("after", (10, 12, 12), (20, 4, 4)), ("before", (10, 24, 24), (20, 8, 8))]
)
def test_the_norm_follows_the_pooled_activation_or_the_convolution(
    norm: str, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    _, norm_inputs = trained_like(SimpleCNNConfig(norm=norm)).forward_with_norm_inputs(images(3))
    assert norm_inputs["block1.norm"].shape == (3, *first)
    assert norm_inputs["block2.norm"].shape == (3, *second)
    rectified = all((x >= 0).all() for x in norm_inputs.values())
    assert rectified == (norm == "after")


@pytest.mark.parametrize("norm", NORM_PLACES)
def test_scripted_it_gives_the_same_answers_in_eval_mode(norm: str) -> None:
    model = trained_like(SimpleCNNConfig(norm=norm))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.script(model)
    for count in (1, 5):
        torch.testing.assert_close(script(images(count)), model(images(count)), rtol=1e-5, atol=1e-5)


# --- RobustCNN -------------------------------------------------------------------------------------------------------


def test_the_robust_network_has_fewer_than_700_000_parameters() -> None:
    convolutions = 1 * 48 * 25 + 9 * (48 * 96 + 96 * 96 + 96 * 192 + 192 * 192)
    norms = 2 * (48 + 96 + 96 + 192 + 192)
    dense = 192 * 3 * 3 * 10 + 10
    assert sum(parameter.numel() for parameter in RobustCNN().parameters()) == convolutions + norms + dense < 700_000


@pytest.mark.parametrize("training", [True, False])
def test_the_robust_network_equals_the_same_made_of_torchs_layers(training: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RobustCNN(RobustCNNConfig(channels=(4, 6, 8), dropout=0.0)).train()
        model(images(32))
    layers: list[nn.Module] = []
    for number, pooled in enumerate((True, False, True, False, False), 1):
        block = model.get_submodule(f"conv{number}")
        norm = block.get_submodule("norm")
        assert isinstance(norm, CustomBatchNorm)
        layers += [block.get_submodule("conv"), norm.to_torch(2), nn.ReLU(), *([nn.MaxPool2d(2)] if pooled else [])]
    reference = nn.Sequential(*layers, nn.Flatten(), model.dense, nn.LogSoftmax(dim=1)).train(training)
    torch.testing.assert_close(model.train(training)(images(8)), reference(images(8)), rtol=1e-5, atol=1e-5)


def test_the_robust_network_without_batch_norm_has_biases_in_their_place() -> None:
    model = RobustCNN(RobustCNNConfig(norm="none"))
    assert not list(model.buffers())
    assert all(module.bias is not None for module in model.modules() if isinstance(module, nn.Conv2d))


# --- SimpleMLP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", lambda z: z.clamp(min=0)), ("sigmoid", torch.special.expit), ("tanh", torch.tanh)],
)
def test_one_dense_layer_and_its_activation(activation: str, function) -> None:  # type: ignore[no-untyped-def]
    layer = SimpleMLP(SimpleMLPConfig(activation=activation))
    x = torch.randn(3, 784, generator=torch.Generator().manual_seed(0))
    y = layer(x)
    assert y.shape == (3, 256)
    torch.testing.assert_close(y, function(x @ layer.dense.weight.t()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_the_bias_starts_at_zero(initializer: str) -> None:
    assert not SimpleMLP(SimpleMLPConfig(initializer=initializer)).dense.bias.any()


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_the_weights_are_those_of_the_named_initialiser(initializer: str) -> None:
    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    layer = SimpleMLP(SimpleMLPConfig(30, 20, initializer=initializer), seeded())
    assert torch.equal(layer.dense.weight, INITIALIZERS[initializer](torch.empty(20, 30), generator=seeded()))


# --- configs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (SimpleCNNConfig, {"norm": "behind"}, "norm: expected one of after, before, none, received 'behind'"),
        (SimpleCNNConfig, {"channels": (10,)}, "channels: expected 2 widths, received 1"),
        (SimpleCNNConfig, {"channels": (10, 20, 30)}, "channels: expected 2 widths, received 3"),
        (SimpleCNNConfig, {"channels": (0, 20)}, "channels: expected at least 1, received 0"),
        (SimpleCNNConfig, {"channels": (10, -1)}, "channels: expected at least 1, received -1"),
        (SimpleCNNConfig, {"hidden": 0}, "hidden: expected at least 1, received 0"),
        (SimpleCNNConfig, {"hidden": 2.5}, "hidden: expected an integer, received 2.5"),
        (SimpleCNNConfig, {"dropout": 1.0}, "dropout: expected a share in .* received 1.0"),
        (SimpleCNNConfig, {"dropout": -0.1}, "dropout: expected a share in .* received -0.1"),
        (SimpleCNNConfig, {"initializer": "ones"}, "initializer: expected one of random_normal, .* received 'ones'"),
        (RobustCNNConfig, {"norm": "after"}, "norm: expected one of before, none, received 'after'"),
        (RobustCNNConfig, {"channels": (10, 20)}, "channels: expected 3 widths, received 2"),
        (RobustCNNConfig, {"channels": (10, 20, 0)}, "third_channels: expected at least 1, received 0"),
        (RobustCNNConfig, {"dropout": 1.0}, "dropout: expected a share in .* received 1.0"),
        (SimpleMLPConfig, {"in_features": 0}, "in_features: expected at least 1, received 0"),
        (SimpleMLPConfig, {"out_features": -3}, "out_features: expected at least 1, received -3"),
        (SimpleMLPConfig, {"activation": "gelu"}, "activation: expected one of relu, sigmoid, tanh, received 'gelu'"),
        (SimpleMLPConfig, {"initializer": "ones"}, "initializer: expected one of random_normal, .* received 'ones'"),
    ],
    ids=str,
)
def test_a_config_out_of_range_is_refused_by_name(config: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


@pytest.mark.parametrize("config", [SimpleCNNConfig(), SimpleMLPConfig()], ids=lambda config: type(config).__name__)
def test_a_config_cannot_be_changed(config) -> None:  # type: ignore[no-untyped-def]
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, getattr(config, field))


def test_a_config_survives_json() -> None:
    config = SimpleCNNConfig(norm="before", channels=(3, 4), hidden=5, dropout=0.25)
    assert SimpleCNNConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
