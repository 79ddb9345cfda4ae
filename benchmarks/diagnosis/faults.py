"""Faults of batch norms, planted as they occur in practice: in how the network is trained, loaded or called."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.diagnosis import networks as zoo
from benchmarks.diagnosis.networks import Batches, Data


@dataclass(frozen=True)
class Case:
    """The arguments of `diagnose`: model, batches and options."""

    model: nn.Module
    batches: Any
    options: dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A fault, the code expected in the report, and a function of the seed that plants it."""

    name: str
    code: str
    make: Callable[[int], Case]


def case(model: nn.Module, batches: Any = None, *, training: bool = False, **options: Any) -> Case:
    return Case(model.train(training), zoo.digits().batches() if batches is None else batches, options)


@lru_cache(maxsize=4)
def _healthy_cnn(seed: int) -> nn.Module:
    return zoo.trained(zoo.cnn, zoo.digits(), seed, steps=120)


def healthy(seed: int = 0, build: Callable[[], nn.Module] = zoo.cnn, **options: Any) -> nn.Module:
    """A network without a fault."""
    if build is zoo.cnn and not options:
        return copy.deepcopy(_healthy_cnn(seed))
    return zoo.trained(build, zoo.digits(), seed, **{"steps": 120, **options})


def norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}


def pass_through(model: nn.Module, batches: Batches, change: Callable[[Tensor], Tensor], count: int = 20) -> nn.Module:
    """Forward passes in train mode without an update of the weights, as after a forgotten eval()."""
    model.train()
    with torch.no_grad():
        for step in range(count):
            model(change(batches[step % len(batches)][0]))
    return model


def darker(x: Tensor) -> Tensor:
    return 0.4 * x - 0.5


def noisier(x: Tensor) -> Tensor:
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


# never-updated


def weights_only_checkpoint(seed: int) -> Case:
    """Parameters were saved, buffers were not; loaded with strict=False."""
    saved = dict(healthy(seed).named_parameters())
    model = zoo.built(zoo.cnn, zoo.digits(), seed + 1)
    model.load_state_dict(saved, strict=False)
    return case(model)


def renamed_layer(seed: int) -> Case:
    """One layer has another name in the checkpoint; strict=False hides it."""
    saved = {k.replace("5.", "old."): v for k, v in healthy(seed).state_dict().items()}
    model = zoo.built(zoo.cnn, zoo.digits(), seed + 1)
    model.load_state_dict(saved, strict=False)
    return case(model)


def functional_training(seed: int) -> Case:
    """Trained through torch.func.functional_call with a copy of the buffers, which is thrown away."""
    data, model = zoo.digits(), zoo.built(zoo.cnn, zoo.digits(), seed)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    optimizer = torch.optim.Adam(parameters.values(), lr=3e-3)
    for inputs, targets in zoo.shuffled(data, 64, 100, seed):
        optimizer.zero_grad()
        data.loss(torch.func.functional_call(model, {**parameters, **buffers}, (inputs,)), targets).backward()
        optimizer.step()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(parameters[name])
    return case(model)


# stale-statistics


def forgotten_eval_on_other_data(seed: int) -> Case:
    return case(pass_through(healthy(seed), zoo.digits().batches(), darker))


def forgotten_eval_on_noise(seed: int) -> Case:
    return case(pass_through(healthy(seed, zoo.resnet, schedule=True, steps=200), zoo.digits().batches(), noisier))


def one_layer_drifted(seed: int) -> Case:
    """All but one norm were frozen while other data went through."""
    model = healthy(seed)
    drifting = copy.deepcopy(model).eval()
    drifting.get_submodule("5").train()
    with torch.no_grad():
        for inputs, _ in zoo.digits().batches(64, "train")[:15]:
            drifting(noisier(darker(inputs)))
    return case(drifting)


def averaged_weights(seed: int) -> Case:
    """Exponential average of the parameters; the buffers stay those of an early network."""
    data, model = zoo.digits(), zoo.trained(zoo.cnn, zoo.digits(), seed, steps=40)
    average = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for inputs, targets in zoo.shuffled(data, 64, 200, seed):
        optimizer.zero_grad()
        data.loss(model(inputs), targets).backward()
        optimizer.step()
        with torch.no_grad():
            for mine, new in zip(average.parameters(), model.parameters(), strict=True):
                mine.lerp_(new, 0.05)
    return case(average)


def tracking_switched_off(seed: int) -> Case:
    """Fine-tuned with track_running_stats switched off and on again: weights moved, statistics did not."""
    data, model = zoo.digits(), zoo.trained(zoo.cnn, zoo.digits(), seed, steps=40)
    for norm in norms(model).values():
        norm.track_running_stats = False
        norm.momentum = 0.0
    zoo.train(model, data, steps=200, seed=seed)
    for norm in norms(model).values():
        norm.track_running_stats = True
        norm.momentum = 0.1
    return case(model)


def frozen_fine_tuning(seed: int) -> Case:
    """No fault: statistics frozen in eval mode while the weights are trained with them."""
    data, model = zoo.digits(), zoo.trained(zoo.cnn, zoo.digits(), seed, steps=6)
    for norm in norms(model).values():
        norm.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for inputs, targets in zoo.shuffled(data, 64, 200, seed):
        optimizer.zero_grad()
        data.loss(model(inputs), targets).backward()
        optimizer.step()
    return case(model)


def cumulative_average(seed: int) -> Case:
    return case(healthy(seed, lambda: zoo.cnn(momentum=None), steps=88), zoo.digits().batches(64, "train"))


# different-data


def other_contrast(seed: int) -> Case:
    data = zoo.digits()
    return case(healthy(seed), [(darker(x), y) for x, y in data.batches()], reference=data.batches(64, "train"))


def raw_pixels(seed: int) -> Case:
    """Inputs in 0…16 for a network trained on −1…1, without targets."""
    data = zoo.digits()
    return case(healthy(seed), [(x + 1) * 8 for x, _ in data.batches()], reference=data.batches(64, "train"))


# noisy-statistics


def last_batch_only(seed: int) -> Case:
    return case(healthy(seed, lambda: zoo.cnn(momentum=1.0), steps=300, size=4))


def keras_momentum(seed: int) -> Case:
    """Keras's 0.99 for PyTorch's 0.01."""
    return case(healthy(seed, lambda: zoo.mlp(64, momentum=0.99), steps=400, size=8), zoo.digits().batches(64, "train"))


# unconverged-average


def tiny_momentum(seed: int) -> Case:
    return case(healthy(seed, lambda: zoo.cnn(momentum=0.001), steps=60))


def short_training(seed: int) -> Case:
    return case(healthy(seed, lambda: zoo.resnet(momentum=0.01), steps=80, schedule=True))


# batch-statistics-in-eval


def no_running_statistics(seed: int) -> Case:
    return case(healthy(seed, lambda: zoo.cnn(track_running_stats=False)))


# mixed-modes


def one_left_in_train_mode(seed: int) -> Case:
    model = healthy(seed).eval()
    model.get_submodule("5").train()
    return Case(model, zoo.digits().batches(), {})


def frozen_backbone(seed: int) -> Case:
    model = healthy(seed).train()
    model.get_submodule("1").eval()
    return Case(model, zoo.digits().batches(), {})


# several-populations


def inverted(x: Tensor) -> Tensor:
    return 1.5 - 2 * x


def siamese_of_two_domains(seed: int) -> Case:
    return case(healthy(seed, lambda: zoo.Siamese(inverted)))


def discriminator(seed: int) -> Case:
    """A GAN's discriminator, called with real and generated images in separate batches."""
    data = zoo.digits()
    torch.manual_seed(seed)
    model = zoo.built(lambda: zoo.cnn(), data, seed)
    generator = torch.Generator().manual_seed(seed)

    def both(model: nn.Module, batch: Any) -> Tensor:
        fake = 0.3 * torch.randn(batch[0].shape, generator=generator) + 0.5
        return torch.cat([model(batch[0]), model(fake)], 1)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for batch in zoo.shuffled(data, 64, 120, seed):
        out = both(model, batch)
        optimizer.zero_grad()
        (nn.functional.softplus(-out[:, 0]) + nn.functional.softplus(out[:, 10])).mean().backward()
        optimizer.step()
    return case(model, [x for x, _ in data.batches()], forward=lambda m, x: both(m, (x,)))


# tiny-batches


def pairs(seed: int) -> Case:
    model = healthy(seed, steps=400, size=2, lr=1e-3)
    return case(model, zoo.digits().batches(2), training=True)


# dead-channels


def dead_after_relu(seed: int) -> Case:
    """ReLUs before the norms that a huge learning rate has killed."""
    data = zoo.digits()
    model = zoo.built(lambda: zoo.relu_first(), data, seed)
    with torch.no_grad():
        dict(model.named_parameters())["0.bias"][:6] -= 30.0
    return case(zoo.train(model, data, steps=250, seed=seed))


def decayed_scale(seed: int) -> Case:
    """Strong weight decay on all parameters, γ included."""

    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=25.0)

    return case(healthy(seed, lambda: zoo.cnn(32), steps=300, optimizer=optimizer))


# exploding-channels


def constant_feature(seed: int) -> Case:
    """A feature that is constant in training but not in the test data, and a tiny ε."""
    data = zoo.digits()
    x, y = data.train
    x = x.clone()
    x[:, :, 3, 3] = 0.25
    changed = Data((x, y), data.test, data.loss)
    model = zoo.trained(lambda: zoo.mlp(64, input_norm=True, eps=1e-12), changed, seed, steps=200)
    return case(model)


# invalid-statistics


def overflow(seed: int) -> Case:
    """One training batch with huge values."""
    model = healthy(seed).train()
    with torch.no_grad():
        x = zoo.digits().train[0][:64].clone()
        x[0] = 1e30
        model(x)
    return case(model)


def diverged(seed: int) -> Case:
    """One NaN in one training batch; the weights were restored, the buffers were not."""
    model = healthy(seed).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        x = zoo.digits().train[0][:64].clone()
        x[3, 0, 2, 2] = float("nan")
        model(x)
        for name, p in model.named_parameters():
            p.copy_(before[name])
    return case(model)


def extrapolated(seed: int) -> Case:
    """Weights extrapolated beyond two checkpoints, buffers with them: negative variances."""
    early, late = zoo.trained(zoo.cnn, zoo.digits(), seed, steps=5), healthy(seed, steps=200)
    state = {
        name: value + 3 * (late.state_dict()[name] - value) if "running" in name else late.state_dict()[name]
        for name, value in early.state_dict().items()
    }
    late.load_state_dict(state)
    dict(late.named_buffers())["1.running_var"].sub_(1.0)
    return case(late)


FAULTS = (
    Fault("checkpoint of parameters only", "never-updated", weights_only_checkpoint),
    Fault("one layer renamed, strict=False", "never-updated", renamed_layer),
    Fault("trained by functional_call", "never-updated", functional_training),
    Fault("eval() forgotten on darker images", "stale-statistics", forgotten_eval_on_other_data),
    Fault("eval() forgotten on noisy images", "stale-statistics", forgotten_eval_on_noise),
    Fault("one layer drifted", "stale-statistics", one_layer_drifted),
    Fault("averaged weights, old buffers", "stale-statistics", averaged_weights),
    Fault("fine-tuned without tracking", "stale-statistics", tracking_switched_off),
    Fault("cumulative average", "stale-statistics", cumulative_average),
    Fault("other contrast", "different-data", other_contrast),
    Fault("raw pixels, no targets", "different-data", raw_pixels),
    Fault("momentum 1, batches of 4", "noisy-statistics", last_batch_only),
    Fault("Keras's momentum 0.99", "noisy-statistics", keras_momentum),
    Fault("momentum 0.001, 60 steps", "unconverged-average", tiny_momentum),
    Fault("momentum 0.01, 80 steps", "unconverged-average", short_training),
    Fault("track_running_stats=False", "batch-statistics-in-eval", no_running_statistics),
    Fault("one norm left in train mode", "mixed-modes", one_left_in_train_mode),
    Fault("frozen backbone", "mixed-modes", frozen_backbone),
    Fault("siamese network of two domains", "several-populations", siamese_of_two_domains),
    Fault("GAN discriminator", "several-populations", discriminator),
    Fault("trained on pairs", "tiny-batches", pairs),
    Fault("dead ReLUs before the norm", "dead-channels", dead_after_relu),
    Fault("weight decay on γ", "dead-channels", decayed_scale),
    Fault("constant feature, tiny ε", "exploding-channels", constant_feature),
    Fault("overflow", "invalid-statistics", overflow),
    Fault("one NaN", "invalid-statistics", diverged),
    Fault("extrapolated checkpoints", "invalid-statistics", extrapolated),
)

MILD = ("siamese network of two domains", "cumulative average")
"""Faults that cost less than one significant point of accuracy, so that a note is correct."""
