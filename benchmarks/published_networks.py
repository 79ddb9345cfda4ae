"""Small versions of published networks from other fields, for the catalogue, with their uses of batch norm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DynamicGraph(nn.Module):
    """Point clouds: an edge convolution over the nearest neighbours (Wang et al. 2019, DGCNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        self.last, self.norm = nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, points = x.shape
        squares = x.square().sum(1, keepdim=True)
        places = (2 * x.mT @ x - squares - squares.mT).topk(5, dim=-1)[1]
        places = (places + torch.arange(batch, device=x.device).view(-1, 1, 1) * points).view(-1)
        rows = x.mT.reshape(batch * points, channels)
        near = rows[places].view(batch, points, 5, channels)
        centre = rows.view(batch, points, 1, channels).expand(-1, -1, 5, -1)
        edges = torch.cat([near - centre, centre], 3).permute(0, 3, 1, 2)
        return self.norm(self.last(self.edges(edges).amax(3).mean(2)))


class GraphAttention(nn.Module):
    """Graphs: attention over a list of edges, in plain torch (Veličković et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.attend = nn.Linear(6, 8, bias=False), nn.Parameter(torch.randn(16))
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h, (i, j) = self.project(x), edges
        score = F.leaky_relu((torch.cat([h[i], h[j]], 1) * self.attend).sum(1), 0.2)
        weight = (score - score.amax()).exp()
        total = torch.zeros_like(h[:, 0]).index_add(0, i, weight) + 1e-6
        h = torch.zeros_like(h).index_add(0, i, h[j] * (weight / total[i])[:, None])
        return self.last(self.norm(h).relu())


class SpatiallyAdaptive(nn.Module):
    """Image synthesis: a batch norm whose γ and β are images (Park et al. 2019, SPADE)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.shared = nn.BatchNorm2d(6, affine=False), nn.Conv2d(4, 8, 3, padding=1)
        self.gamma, self.beta = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 4, 3, padding=1))

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        actions = self.shared(F.interpolate(segments, size=x.shape[2:], mode="nearest")).relu()
        return self.conv(F.leaky_relu(self.norm(x) * (1 + self.gamma(actions)) + self.beta(actions), 0.2))


class PaddedNorm(nn.Module):
    """Re-parametrised networks: a batch norm padded with the value of 0 (Ding et al. 2021, diverse branch block)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.second, self.after = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        border = self.norm(torch.zeros(1, 4, 1, 1)).detach()
        y = F.pad(self.norm(self.first(x)), [1] * 4)
        y[:, :, 0:1, :] = y[:, :, -1:, :] = border
        y[:, :, :, 0:1] = y[:, :, :, -1:] = border
        return self.after(self.second(y)).relu()


class SharedHead(nn.Module):
    """Detection: one head for two levels, with a batch norm per level, and decoded boxes (Tian et al. 2019, FCOS)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 6, 3, 4, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.tower, self.norms = nn.Conv2d(6, 6, 3, padding=1), nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)])
        self.boxes = nn.Conv2d(6, 4, 3, padding=1)
        self.priors = nn.Parameter(torch.rand(80, 4), requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = [first := self.stem(x), self.down(first.relu())]
        found = []
        for norm, level, stride in zip(self.norms, levels, (4, 8), strict=True):
            box = self.boxes(norm(self.tower(level)).relu()).relu().flatten(2).mT * stride
            height, width = level.shape[2:]
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centre = torch.stack([x, y], -1).reshape(1, -1, 2).to(box) * stride
            found.append(torch.cat([centre - box[..., :2], centre + box[..., 2:]], -1))
        return torch.cat(found, 1), self.priors


class ShiftedFrames(nn.Module):
    """Video: channels moved to the neighbouring frames, with frames in the batch (Lin et al. 2019, TSM)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x.flatten(0, 1))).unflatten(0, (-1, 4))
        moved = torch.zeros_like(y)
        moved[:, :-1, :2], moved[:, 1:, 2:4], moved[:, :, 4:] = y[:, 1:, :2], y[:, :-1, 2:4], y[:, :, 4:]
        return self.last(moved.mean((1, 3, 4)))


class Interest(nn.Module):
    """Recommendation: Dice, an activation with a batch norm inside (Zhou et al. 2018, DIN)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.norm = nn.Embedding(30, 6), nn.Linear(12, 8), nn.BatchNorm1d(8, affine=False)
        self.slope, self.last = nn.Parameter(torch.full((8,), 0.2)), nn.Linear(8, 1)

    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        query, keys = self.table(item), self.table(history)
        share = torch.where(history > 0, (keys @ query.unsqueeze(2)).squeeze(2), -(2.0**31)).softmax(1)
        x = self.first(torch.cat([torch.einsum("bl,bld->bd", share, keys), query], 1))
        alive = self.norm(x).sigmoid()
        return self.last(alive * x + (1 - alive) * self.slope * x)


class Contrast(nn.Module):
    """Retrieval: similarities of all pairs of a batch (Radford et al. 2021, CLIP)."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5))
        self.right = nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, affine=False))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return 10 * F.normalize(self.left(a), dim=1) @ F.normalize(self.right(b), dim=1).mT


class TwoViews(nn.Module):
    """Self-supervision: both views in one batch, split again (Chen & He 2021, SimSiam)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        self.norm = nn.BatchNorm1d(4, affine=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        one, other = self.norm(self.encode(torch.cat([a, b]))).chunk(2)
        return F.cosine_similarity(one, other)


class Positions(nn.Module):
    """Speech and vision transformers: a convolutional stem and position embeddings, behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.places = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Parameter(torch.randn(8, 4, 4))
        self.attend, self.after = nn.MultiheadAttention(8, 2, batch_first=True), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.norm(self.stem(x)) + self.places).flatten(2)
        x = x + self.attend(x.mT, x.mT, x.mT, need_weights=False)[0].mT
        return self.after(x).mean(2)


class Spectrogram(nn.Module):
    """Sound events: a log-mel spectrogram, normalised per band, and a recurrent layer (Kong et al. 2020, PANNs)."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64), persistent=False)
        self.bands, self.norm = nn.Parameter(torch.rand(33, 10), requires_grad=False), nn.BatchNorm1d(10)
        self.recurrent, self.last = nn.GRU(10, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        power = torch.stft(x, 64, 16, window=self.window, return_complex=True).abs().square()
        bands = (power.mT @ self.bands).clamp(min=1e-10).log10()
        return self.last(self.recurrent(self.norm(bands.mT).mT)[0].mean(1))


class Coupling(nn.Module):
    """Normalising flows: affine coupling layers and batch norms (Dinh et al. 2017, RealNVP)."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(2)
        )
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        log_det = x.new_zeros(len(x))
        for net in self.nets:
            a, b = x.flip(1).chunk(2, 1)
            scale, shift = net(a).chunk(2, 1)
            scale = scale.tanh()
            x, log_det = torch.cat([a, b * scale.exp() + shift], 1), log_det + scale.sum(1)
        return {"z": self.norm(x), "log_det": log_det}


class DoubleOutside(nn.Module):
    """Scientific code: takes and returns float64, and computes in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x.float()).double()
        return result
