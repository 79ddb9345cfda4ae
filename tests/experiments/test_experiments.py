"""The experiments against torch's own layers and hand calculation; they do not change the network."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from bnmodel import RECIPES, CustomBatchNorm, SimpleCNN, SimpleCNNConfig, load_checkpoint, plotting
from bnmodel.__main__ import main
from bnmodel.data import load_sample
from bnmodel.experiments import (
    batch_spread,
    catalogue,
    corruption,
    faults,
    forgotten_eval,
    gradients,
    initialization,
    modes,
)
from bnmodel.experiments import running_statistics as statistics
from bnmodel.experiments.batch_statistics import custom_batchnorms, with_batch_statistics
from bnmodel.experiments.other_samples import KINDS, most_revealing, other_samples
from bnmodel.training.checkpoint import save_checkpoint
from bnmodel.training.evaluation import evaluate
from bnmodel.training.history import Epoch, History
from demo import svg

NETWORK = load_checkpoint("checkpoints/lecture").model
DIGIT = load_sample(train=False).images[5, 0]  # a 1


def with_torch_norms(model: nn.Module, train: bool) -> nn.Module:
    """The same network with torch's own batch norms, in the given mode, and dropout off."""
    changed = copy.deepcopy(model).eval()
    for name, norm in custom_batchnorms(model).items():
        changed.set_submodule(name, norm.to_torch().train(train))
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_both_answers_are_those_of_torchs_own_batch_norm_in_either_mode(kind):
    others = other_samples(kind, 20, 3, DIGIT, label=7)
    result = modes.compare(NETWORK, DIGIT, others)
    batch = torch.cat((DIGIT[None, None], others))
    with torch.no_grad():
        train = with_torch_norms(NETWORK, train=True)(batch)[0].exp().numpy()
        evaluated = with_torch_norms(NETWORK, train=False)(batch)[0].exp().numpy()
    np.testing.assert_allclose(result.train_probabilities, train, atol=1e-5)
    np.testing.assert_allclose(result.eval_probabilities, evaluated, atol=1e-5)


def test_the_statistics_shown_are_those_of_the_batch_computed_by_hand():
    others = other_samples("random", 10, 0, DIGIT)
    first = modes.compare(NETWORK, DIGIT, others).norms[0]
    with torch.no_grad():
        x = NETWORK.block1(torch.cat((DIGIT[None, None], others)))[1].double()  # what the first norm receives
    values = x.transpose(0, 1).flatten(1).numpy()  # (C, values)
    np.testing.assert_allclose(first.batch_mean, values.mean(1), atol=1e-6)
    np.testing.assert_allclose(first.batch_std, values.std(1), atol=1e-6)
    np.testing.assert_array_equal(first.running_mean, NETWORK.block1.norm.running_mean.numpy())


def test_alone_a_digit_is_normalised_by_its_own_statistics():
    alone = modes.compare(NETWORK, DIGIT, other_samples("random", 0, 0, DIGIT))
    np.testing.assert_allclose(alone.norms[0].batch_mean, alone.norms[0].train_input.mean((1, 2)), atol=1e-6)
    assert alone.others.shape == (0, 28, 28)


def test_copies_of_the_digit_give_the_same_answer_as_the_digit_alone():
    copies = modes.compare(NETWORK, DIGIT, other_samples("copies", 9, 0, DIGIT))
    alone = modes.compare(NETWORK, DIGIT, other_samples("copies", 0, 0, DIGIT))
    np.testing.assert_allclose(copies.train_probabilities, alone.train_probabilities, atol=1e-5)


def test_samples_of_one_class_are_of_that_class_and_inverted_ones_are_negatives():
    sample = load_sample(train=True)
    fives = sample.images[sample.labels == 5]
    chosen = other_samples("one class", 30, 1, DIGIT, label=5)
    assert all((image == fives).flatten(1).all(1).any() for image in chosen)
    random, inverted = (other_samples(kind, 8, 2, DIGIT) for kind in ("random", "inverted"))
    assert torch.equal(inverted, 1 - random)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strangers", 3, 0, DIGIT), "expected one of random, .* received 'strangers'"),
        (("random", 256, 0, DIGIT), "expected 0 … 255, received 256"),
        (("one class", 3, 0, DIGIT, 10), "expected a digit 0 … 9"),
    ],
)
def test_invalid_other_samples_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        other_samples(*arguments)


@pytest.mark.parametrize("count", [0, 1, 31])
def test_the_train_mode_answer_alone_is_that_of_the_comparison(count):
    others = other_samples("random", count, 0, DIGIT)
    expected = modes.compare(NETWORK, DIGIT, others).train_probabilities
    np.testing.assert_allclose(modes.train_probabilities(NETWORK, DIGIT, others), expected, rtol=1e-5, atol=1e-7)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 9))
def test_many_batches_at_once_are_normalised_as_one_by_one(batches, size):
    images = load_sample(train=True).images[: batches * size]
    with torch.no_grad():
        together = with_batch_statistics(NETWORK, batches)(images)
        alone = torch.cat([with_batch_statistics(NETWORK)(batch) for batch in images.split(size)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_spread_narrows_towards_the_eval_answer_as_the_batch_grows():
    result = batch_spread.run(NETWORK, load_sample(train=False).images[8, 0], batch_size=4, batches=40)
    width = result.quantiles[:, 2] - result.quantiles[:, 0]
    assert width[-1] < width[1]
    assert abs(result.quantiles[-1, 1] - result.eval_probability) < 0.1
    assert len(result.probabilities) == 40


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(7, 300), st.integers(1, 300))
def test_precise_statistics_do_not_depend_on_how_the_data_is_split(count, batch_size):
    images = load_sample(train=True).images[:count]
    split = statistics.precise_statistics(NETWORK, images, batch_size)
    whole = statistics.precise_statistics(NETWORK, images, count)
    for name in whole:
        for a, b in zip(split[name], whole[name], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_precise_statistics_are_mean_and_unbiased_variance_of_what_each_norm_receives():
    images = load_sample(train=True).images[:200]
    precise = statistics.precise_statistics(NETWORK, images)
    network = statistics.with_statistics(NETWORK, precise)
    with torch.no_grad():
        _, inputs = network.forward_with_norm_inputs(images)
    for name, x in inputs.items():
        values = x.double().transpose(0, 1).flatten(1).numpy()
        np.testing.assert_allclose(precise[name][0], values.mean(1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(precise[name][1], values.var(1, ddof=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
def test_the_running_average_is_that_of_torchs_layer(momentum):
    batches = [torch.randn(16, 3) * 2 + 1 for _ in range(12)]
    layer = nn.BatchNorm1d(3, momentum=momentum)
    for batch in batches:
        layer(batch)
    stream = torch.stack([b.mean(0) for b in batches]), torch.stack([b.var(0) for b in batches])
    mean, var = statistics.running_average(stream, momentum)
    torch.testing.assert_close(mean[-1], layer.running_mean)
    torch.testing.assert_close(var[-1], layer.running_var)
    assert (mean[0] == 0).all()
    assert (var[0] == 1).all()


def test_an_unknown_channel_or_norm_is_refused():
    with pytest.raises(ValueError, match="channel: expected 0 … 9, received 10"):
        statistics.run(NETWORK, DIGIT, channel=10)
    with pytest.raises(ValueError, match=r"norm: expected one of block1\.norm, block2\.norm, received 'norm9'"):
        statistics.run(NETWORK, DIGIT, norm="norm9")
    with pytest.raises(ValueError, match="this network has no batch norm"):
        statistics.run(SimpleCNN(SimpleCNNConfig(norm="none")), DIGIT)


def test_forgotten_eval_is_what_torchs_layers_do_when_they_are_left_in_train_mode():
    result = forgotten_eval.run(NETWORK, DIGIT, calls=6)
    network = with_torch_norms(NETWORK, train=True)
    with torch.no_grad():
        for _ in range(6):
            network(DIGIT[None, None])
        probability = network.eval()(DIGIT[None, None])[0].exp()[result.label]
    assert result.calls[-1] == 6
    assert result.probability[-1] == pytest.approx(float(probability), abs=1e-4)
    assert result.accuracy[-1] == pytest.approx(evaluate(network, load_sample(train=False))[1], abs=2e-3)
    assert result.drift[0] == 0
    assert (np.diff(result.drift) > 0).all()


def test_by_reference_restores_the_last_epoch_and_by_copy_the_best():
    losses = [0.9, 0.5, 0.7, 0.4, 0.6]
    fault = faults.best_by_reference(History([Epoch(1, 1.0, 0.5, loss, 0.5, 0.1, 1.0) for loss in losses]))
    assert fault.wrong.tolist() == [0.6]  # short histories are shown from their end
    assert fault.right.tolist() == [0.4]


def test_statistics_not_saved_start_from_those_of_a_new_layer_and_recover():
    fault = faults.statistics_not_saved(NETWORK)
    network = copy.deepcopy(NETWORK)
    for module in network.modules():
        if isinstance(module, CustomBatchNorm):
            module.reset_running_stats()
    assert fault.wrong[0] == pytest.approx(evaluate(network, load_sample(train=False))[1])
    assert fault.wrong[-1] > fault.wrong[0]
    assert (fault.right >= fault.wrong).all()


def test_inverted_momentum_jitters_more_than_the_right_one():
    fault = faults.momentum_inverted(NETWORK)
    assert np.std(np.diff(fault.wrong)) > 3 * np.std(np.diff(fault.right))


def test_without_corruption_the_running_statistics_give_the_clean_accuracy():
    result = corruption.run(NETWORK, DIGIT, "blur")
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[: corruption.SAMPLES]
    assert result.eval_accuracy[0] == pytest.approx(evaluate(NETWORK, load_sample(train=False)[order])[1])
    assert result.label == 1


def test_full_inversion_is_the_negative_and_full_contrast_loss_leaves_a_twentieth():
    images, generator = torch.rand(2, 1, 28, 28), torch.Generator()
    torch.testing.assert_close(corruption.inversion(images, 1.0, generator), 1 - images)
    torch.testing.assert_close(corruption.contrast(images, 1.0, generator), images / 20)
    with pytest.raises(ValueError, match="expected one of noise, blur"):
        corruption.run(NETWORK, DIGIT, "fog")
    with pytest.raises(ValueError, match="expected a divisor of 500"):
        corruption.run(NETWORK, DIGIT, "noise", batch_size=33)


def everything() -> dict:
    return {
        "modes": modes.compare(NETWORK, DIGIT, other_samples("noise", 5, 1, DIGIT)),
        "batch_spread": batch_spread.run(NETWORK, DIGIT, 2, batches=5),
        "running_statistics": statistics.run(NETWORK, DIGIT, steps=5),
        "forgotten_eval": forgotten_eval.run(NETWORK, DIGIT, calls=3),
        "corruption": corruption.run(NETWORK, DIGIT, "noise"),
        "faults": [faults.statistics_not_saved(NETWORK, steps=3), faults.momentum_inverted(NETWORK, steps=3)],
    }


def test_the_same_arguments_give_the_same_numbers_and_the_shared_network_is_not_touched():
    before = copy.deepcopy(NETWORK.state_dict())
    first, second = everything(), everything()
    for name in first:
        assert catalogue.plain(first[name]) == catalogue.plain(second[name]), name
    assert not NETWORK.training
    assert all(torch.equal(before[name], value) for name, value in NETWORK.state_dict().items())
    assert not any(module._forward_pre_hooks for module in NETWORK.modules())


def test_every_picture_takes_its_text_colour_from_the_page_and_says_what_it_is():
    results = everything()
    drawn = [catalogue.EXPERIMENTS[name][1](result) for name, result in results.items()]
    for figure in [*drawn, modes.feature_maps(results["modes"])]:
        picture = svg.to_panels(figure, 'a "picture"')
        assert picture.startswith('<svg role="img" aria-label="a &quot;picture&quot;"')
        assert "currentColor" in picture
        assert plotting.INK not in picture


def test_the_legend_of_a_figure_is_above_its_panels():
    results = {**everything(), "gradients": gradients.run(), "initialization_depth": initialization.stack(depth=3)}
    for name, result in results.items():
        with plotting.plot_style():
            figure = catalogue.EXPERIMENTS[name][1](result)
            figure.draw_without_rendering()
        assert not any(axes.get_legend() for axes in figure.axes), name
        (legend,) = figure.legends
        assert legend.get_window_extent().y0 >= max(axes.get_tightbbox().y1 for axes in figure.axes), name


def test_the_command_line_writes_picture_and_numbers_of_a_drawn_digit(tmp_path, capsys):
    Image.fromarray((255 - DIGIT.numpy() * 255).astype(np.uint8)).resize((200, 200)).save(tmp_path / "drawn.png")
    arguments = ["experiment", "modes", "--image", str(tmp_path / "drawn.png"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["modes.json", "modes.png", "modes.svg"]
    assert np.argmax(json.loads((tmp_path / "out/modes.json").read_text())["eval_probabilities"]) == 1


def test_the_numbers_have_null_for_what_a_network_without_batch_norm_lacks(tmp_path):
    network = SimpleCNN(SimpleCNNConfig(norm="none", channels=(2, 3), hidden=4)).eval()
    save_checkpoint(tmp_path / "best.pt", network, RECIPES["lecture"].to_dict(), {}, "sample")
    catalogue.write("forgotten_eval", tmp_path, DIGIT, tmp_path)
    numbers = json.loads((tmp_path / "forgotten_eval.json").read_text(), parse_constant=pytest.fail)
    assert set(numbers["drift"]) == {None}


@pytest.mark.parametrize(("content", "message"), [(b"no image", "expected an image"), (None, "blank")])
def test_the_command_line_refuses_files_that_are_no_drawing(tmp_path, capsys, content, message):
    path = tmp_path / "drawn.png"
    Image.new("L", (50, 50), 255).save(path) if content is None else path.write_bytes(content)
    assert main(["experiment", "modes", "--image", str(path), "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_experiment_is_refused_with_the_names_of_all(tmp_path, capsys):
    assert main(["experiment", "alchemy", "--out", str(tmp_path)]) == 1
    assert "expected one of modes, worked_example, batch_spread" in capsys.readouterr().err


def test_the_most_revealing_other_samples_flip_the_answer_if_they_are_said_to_and_are_deterministic():
    images = load_sample(train=False).images
    found = 0
    for digit in images[[5, 14, 716, 900], 0]:
        chosen, flips = most_revealing(NETWORK, digit)
        again = other_samples(chosen.kind, chosen.count, chosen.seed, digit, chosen.label)
        result = modes.compare(NETWORK, digit, again)
        assert flips == (result.train_probabilities.argmax() != result.eval_probabilities.argmax())
        assert most_revealing(NETWORK, digit) == (chosen, flips)
        found += flips
    assert found  # 716 was chosen as one that flips


def test_without_a_flip_the_samples_that_lower_the_answer_most_are_returned():
    network = copy.deepcopy(NETWORK)
    network.dense2.bias.data[1] += 1e6  # always a 1
    chosen, flips = most_revealing(network, DIGIT)
    assert not flips
    assert chosen.kind in KINDS


def test_inverted_momentum_needs_a_batch_norm():
    with pytest.raises(ValueError, match="no batch norm"):
        faults.momentum_inverted(SimpleCNN(SimpleCNNConfig(norm="none")))
