"""Networks of torchvision, of timm and of our own, with an example and the expected outcome of `certify` for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import published_networks as published

TORCHVISION = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64, "efficientnet_v2_s": 64,
    "googlenet": 64, "inception_v3": 96, "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64, "regnet_y_400mf": 64, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64, "vgg11_bn": 64, "wide_resnet50_2": 64, "vit_b_16": 224,
    "swin_t": 64, "maxvit_t": 224,
}  # fmt: skip
SEGMENTATION = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18")
DETECTION = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn")
TIMM = (
    "resnet10t", "resnet26t", "efficientnet_lite0", "mobilenetv3_small_050", "ghostnet_050", "regnety_002",
    "mixnet_s", "hrnet_w18_small", "dla34", "dpn68", "densenet121", "cspresnet50", "darknet53", "ese_vovnet19b_dw",
    "repvgg_a0", "rexnet_100", "tf_efficientnetv2_b0", "xception41", "res2net50_26w_4s", "skresnet18", "selecsls42b",
    "levit_128s", "mobilevit_xxs", "mobileone_s0", "fbnetc_100", "spnasnet_100", "hardcorenas_a", "lcnet_050",
    "tinynet_e", "pit_ti_224", "edgenext_xx_small", "repghostnet_050", "fastvit_t8", "efficientformerv2_s0",
    "mobilenetv4_conv_small", "inception_v4", "nf_regnet_b0", "convmixer_768_32", "poolformer_s12", "coat_tiny",
    "resnetv2_50", "starnet_s1", "ghostnetv2_100", "vovnet39a", "botnet26t_256", "halonet26t", "eca_botnext26ts_256",
    "tresnet_m", "gernet_s", "visformer_tiny",
)  # fmt: skip
TIMM_SIZES = {
    **dict.fromkeys(("pit_ti_224", "levit_128s", "coat_tiny", "visformer_tiny", "efficientformerv2_s0"), 224),
    **dict.fromkeys(("botnet26t_256", "eca_botnext26ts_256", "halonet26t", "mobilevit_xxs"), 256),
    "inception_v4": 128,
}
"""Height and width of the images; 64 for the others."""


# ---- small networks of our own


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(self.a(x)), inplace=True)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False, groups=2), nn.BatchNorm2d(16), nn.ReLU(True),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z[:, :, None, None])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def block(a: int, b: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())

        self.down, self.middle, self.up = block(3, 8), block(8, 16), block(24, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fine = self.down(image)
        coarse = self.middle(F.max_pool2d(fine, 2))
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return {"mask": self.head(self.up(torch.cat([fine, coarse], 1))), "features": coarse}


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(20, 12), nn.BatchNorm1d(12)
        self.rnn = getattr(nn, kind)(12, 10, batch_first=True, bidirectional=True)
        self.after, self.head = nn.BatchNorm1d(20), nn.Linear(20, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.embed(tokens).transpose(1, 2)).transpose(1, 2)
        return self.head(self.after(self.rnn(x)[0][:, -1]))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.table = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 3)

    def forward(self, image: Tensor, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.image(image)
        x = x if table is None else x + self.table(table)
        return self.head(x), x


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attend = nn.BatchNorm1d(16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.register_buffer("mask", torch.full((9, 9), float("-inf")).triu(1))
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.attend(x, x, x, attn_mask=self.mask, need_weights=False)[0])


class HandWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.gain, self.offset = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.randn(6))
        self.register_buffer("moving_mean", torch.randn(6))
        self.register_buffer("moving_var", torch.rand(6) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        def shaped(v: Any) -> Any:
            return v[None, :, None, None]

        x = self.conv(x)
        x = (x - shaped(self.moving_mean)) / torch.sqrt(shaped(self.moving_var) + 1e-5)
        return F.gelu(x * shaped(self.gain) + shaped(self.offset))


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.conv = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.conv(F.relu(self.norm(x)))).mean((2, 3))


class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(12, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.relu(self.norm(self.a(x))), self.a.weight.t())


class NormAct(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), 0.1)


class DynamicConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, 4, 3, 3, 3))
        self.norm, self.route = nn.BatchNorm2d(4), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        share = self.route(x.mean((0, 2, 3))).softmax(0)
        return self.norm(F.conv2d(x, torch.einsum("k,koihw->oihw", share, self.weights)))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return x.relu() if x.mean() > 0 else x.tanh()


def conv(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *layers)


def hooked() -> nn.Module:
    network = conv(nn.ReLU())
    network[1].register_forward_hook(lambda _module, _inputs, output: output * 1.5)
    return network


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    network = conv(nn.ReLU(), nn.Conv2d(8, 4, 1), nn.BatchNorm2d(4))
    prune.l1_unstructured(network[0], "weight", 0.3)
    return network


def parametrized(kind: str) -> nn.Module:
    network = conv(nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    make: Any = {
        "weight_norm": nn.utils.parametrizations.weight_norm,
        "spectral_norm": nn.utils.parametrizations.spectral_norm,
        "old_weight_norm": nn.utils.weight_norm,
        "old_spectral_norm": nn.utils.spectral_norm,
    }[kind]
    make(network[0])
    make(network[3])
    with torch.no_grad():
        network(torch.rand(2, 3, 12, 12))
    return network


def in_train_mode() -> nn.Module:
    network = conv(nn.ReLU()).eval()
    network[1].train()
    return network


IMAGE = (4, 3, 16, 16)


@dataclass(frozen=True)
class Entry:
    """How to build a network and an example, and the expected outcome: "certified", "refused" or "either"."""

    make: Callable[[], Any]
    example: Callable[[], Any] = lambda: torch.rand(IMAGE)
    expected: str = "certified"
    family: str = "own"


OWN: dict[str, Entry] = {
    "residual": Entry(lambda: nn.Sequential(Residual(3), Residual(3))),
    "generator": Entry(Generator, lambda: torch.randn(4, 16)),
    "unet": Entry(UNet),
    **{kind: Entry(partial(Recurrent, kind), lambda: torch.randint(0, 20, (4, 9))) for kind in ("RNN", "GRU", "LSTM")},
    "two inputs": Entry(TwoInputs, lambda: (torch.rand(IMAGE), torch.rand(4, 5))),
    "optional input": Entry(TwoInputs, lambda: {"image": torch.rand(IMAGE)}),
    "attention": Entry(Attention, lambda: torch.randn(4, 9, 16)),
    "hand-written": Entry(HandWritten),
    "pre-activation": Entry(PreActivation),
    "tied autoencoder": Entry(TiedAutoencoder, lambda: torch.randn(4, 12)),
    "norm with activation": Entry(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), NormAct(6))),
    "dynamic convolution": Entry(DynamicConvolution, expected="refused"),
    "branches": Entry(Branches, expected="refused"),
    "hook": Entry(hooked),
    "pruned": Entry(pruned),
    **{
        kind: Entry(partial(parametrized, kind))
        for kind in ("weight_norm", "spectral_norm", "old_weight_norm", "old_spectral_norm")
    },
    "train mode": Entry(in_train_mode, expected="refused"),
    "reflect": Entry(lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"))),
    "same padding": Entry(lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding="same"), nn.BatchNorm2d(5))),
    "upsample": Entry(
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Upsample(scale_factor=4, mode="bilinear"))
    ),
    "pixel shuffle": Entry(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.BatchNorm2d(2))),
    "enlarging pool": Entry(lambda: conv(nn.AdaptiveAvgPool2d(20))),
    "1-D": Entry(
        lambda: nn.Sequential(nn.Conv1d(3, 6, 5), nn.BatchNorm1d(6), nn.ReLU(), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3)),
        lambda: torch.rand(4, 3, 20),
    ),
    "3-D": Entry(
        lambda: nn.Sequential(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2)),
        lambda: torch.rand(4, 2, 8, 8, 8),
    ),
    "linear on axis 2": Entry(
        lambda: nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU()), lambda: torch.rand(4, 6, 12)
    ),
    "float16": Entry(lambda: conv(nn.ReLU()).half(), lambda: torch.rand(IMAGE).half()),
    "bfloat16": Entry(lambda: conv(nn.ReLU()).bfloat16(), lambda: torch.rand(IMAGE).bfloat16()),
    "float64": Entry(lambda: conv(nn.ReLU()).double(), lambda: torch.rand(IMAGE).double()),
    "batch of 1": Entry(lambda: conv(nn.ReLU()), lambda: torch.rand(1, 3, 16, 16)),
    "train root": Entry(lambda: conv(nn.ReLU(), nn.Dropout(0.5)).train()),
    "sync": Entry(lambda: nn.SyncBatchNorm.convert_sync_batchnorm(conv(nn.ReLU()))),
    "data parallel": Entry(lambda: nn.DataParallel(conv(nn.ReLU()))),
    "compiled": Entry(lambda: torch.compile(conv(nn.ReLU()))),
    "scripted": Entry(lambda: torch.jit.script(conv(nn.ReLU())), expected="refused"),
    "meta": Entry(lambda: conv(nn.ReLU()).to("meta"), expected="refused"),
    "lazy": Entry(lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()), expected="refused"),
    "dynamic graph": Entry(published.DynamicGraph, lambda: torch.randn(4, 3, 18)),
    "graph attention": Entry(published.GraphAttention, lambda: (torch.randn(20, 6), torch.randint(0, 20, (2, 36)))),
    "spatially adaptive": Entry(
        published.SpatiallyAdaptive, lambda: (torch.randn(4, 6, 8, 8), torch.randn(4, 4, 16, 16))
    ),
    "padded norm": Entry(published.PaddedNorm),
    "shared head": Entry(published.SharedHead, lambda: torch.rand(4, 3, 32, 32)),
    "shifted frames": Entry(published.ShiftedFrames, lambda: torch.rand(4, 4, 3, 10, 10)),
    "interest": Entry(published.Interest, lambda: (torch.randint(0, 30, (4,)), torch.randint(0, 30, (4, 7)))),
    "contrast": Entry(published.Contrast, lambda: (torch.randn(4, 6), torch.randn(4, 6))),
    "two views": Entry(published.TwoViews, lambda: (torch.randn(4, 6), torch.randn(4, 6))),
    "positions": Entry(published.Positions),
    "spectrogram": Entry(published.Spectrogram, lambda: torch.randn(4, 400)),
    "coupling": Entry(published.Coupling, lambda: torch.randn(4, 6)),
    "float64 outside": Entry(published.DoubleOutside, lambda: torch.randn(4, 6, dtype=torch.float64)),
}


def disturbed(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm random statistics, γ (of either sign) and β, so that a wrong fold is noticed."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if not isinstance(mean, Tensor) or not isinstance(var, Tensor) or mean.is_meta or type(mean) is not Tensor:
            continue
        with torch.no_grad():
            mean.copy_(torch.randn(mean.shape, generator=generator) * 0.3)
            var.copy_(torch.rand(var.shape, generator=generator) * 1.5 + 0.5)
            for name in ("weight", "bias"):
                value = getattr(module, name, None)
                if isinstance(value, Tensor) and value.is_leaf:
                    sign = torch.where(torch.rand(value.shape, generator=generator) < 0.2, -1.0, 1.0)
                    noise = torch.rand(value.shape, generator=generator)
                    value.copy_((noise + 0.5) * sign if name == "weight" else noise - 0.5)
    return network


def catalogue() -> dict[str, Entry]:
    """Name → entry; without timm's networks if timm is not installed."""
    found = OWN | _torchvision()
    try:
        import timm
    except ImportError:
        return found
    for name in TIMM:
        example = _images(TIMM_SIZES.get(name, 64))
        found[f"timm {name}"] = Entry(partial(timm.create_model, name), example, family="timm")
    return found


def _torchvision() -> dict[str, Entry]:
    from torchvision import models

    plain = partial(Entry, family="torchvision")
    found = {}
    for name, size in TORCHVISION.items():
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        found[name] = plain(partial(getattr(models, name), weights=None, **options), _images(size))
    for name in SEGMENTATION:
        make = partial(getattr(models.segmentation, name), weights=None, weights_backbone=None)
        found[name] = plain(make, _images(64))
    for name in VIDEO:
        found[name] = plain(partial(getattr(models.video, name), weights=None), lambda: torch.rand(2, 3, 4, 32, 32))
    for name in DETECTION:
        make = partial(getattr(models.detection, name), weights=None, weights_backbone=None)
        found[name] = plain(make, lambda: [torch.rand(3, 96, 96)], "either")
    return found


def _images(size: int) -> Callable[[], Tensor]:
    return lambda: torch.rand(2, 3, size, size)
