"""Three claims about batch norm, tested on the sweep, with 95% confidence intervals over its seeds.

Batch norm is claimed to converge faster, to allow higher learning rates, and to be less sensitive to initialisation
(Ioffe & Szegedy 2015, arXiv 1502.03167). Each measure is computed per seed. A position of batch norm is better than
none if the interval of the paired difference (same seed: same initial weights and order of the digits) excludes zero.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import fmean, median, stdev

from bnmodel.experiments.convergence_sweep import LEARNED, Cell, Sweep
from bnmodel.experiments.gradients import POSITIONS
from bnmodel.nn.init import INITIALIZERS

TARGET = 0.97  # validation accuracy; the first step that reaches it counts
EASIER = 0.95  # a lower one, which enough settings reach at every position to be compared
SLOW = 0.01  # the lecture's learning rate
NAMES = tuple(name for name in INITIALIZERS if name != "zeros")
SCALED = tuple(name for name in NAMES if name != "random_normal")  # initialisers that scale with the layer
CONFIDENCE = 0.95

Cells = Mapping[tuple[str, str, float], Cell]  # of one seed, by position, initialiser and rate


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95% confidence interval (Student's t)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "none"
        return f"{self.mean:.3g}" if self.low == self.high else f"{self.mean:.3g} ({self.low:.3g} – {self.high:.3g})"


@dataclass(frozen=True)
class Measure:
    """A number per position of batch norm and seed. `ratio`: averaged and compared as logarithms."""

    name: str
    values: Mapping[str, tuple[float, ...]]  # by position
    larger_is_better: bool
    ratio: bool = False

    def interval(self, position: str) -> Interval:
        found = interval([self._scaled(value) for value in self.values[position]])
        return Interval(*(math.exp(x) for x in (found.mean, found.low, found.high))) if self.ratio else found

    def better(self, position: str) -> bool:
        """Whether `position` is better than none, by the interval of the paired difference."""
        pairs = zip(self.values[position], self.values["none"], strict=True)
        sign = 1 if self.larger_is_better else -1
        return interval([sign * (self._scaled(value) - self._scaled(none)) for value, none in pairs]).low > 0

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.ratio else value


@dataclass(frozen=True)
class Claim:
    """One claim with its measures."""

    name: str
    measures: tuple[Measure, ...]

    @property
    def verdict(self) -> str:
        """The claim holds if batch norm is better at both positions in all measures."""
        found = [measure.better(position) for measure in self.measures for position in ("before", "after")]
        return "holds" if all(found) else "holds in part" if any(found) else "does not hold here"


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent values and its 95% confidence interval; at least two."""
    from scipy.special import stdtrit  # slow to import

    mean = fmean(values)
    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def claims(sweep: Sweep) -> tuple[Claim, ...]:
    """The claims in numbers, from a complete sweep of at least two seeds; a diverged training counts as accuracy 0."""
    seeds = [
        {(cell.position, cell.initializer, cell.rate): cell for cell in sweep.cells if cell.seed == seed}
        for seed in range(sweep.seeds)
    ]
    rates = sorted({cell.rate for cell in sweep.cells})
    settings = list(product(NAMES, rates))
    shared = [
        (name, rate)
        for name, rate in settings
        if all(steps_to(at[position, name, rate], sweep.every, EASIER) for at in seeds for position in POSITIONS)
    ]

    def measure(name: str, of: Callable[[Cells, str], float], larger: bool, ratio: bool = False) -> Measure:
        return Measure(
            name, {position: tuple(of(at, position) for at in seeds) for position in POSITIONS}, larger, ratio
        )

    def learned(at: Cells, position: str) -> int:
        return sum(steps_to(at[position, name, rate], sweep.every) is not None for name, rate in settings)

    def steps(at: Cells, position: str) -> float:
        reached = [steps_to(at[position, name, rate], sweep.every, EASIER) or math.nan for name, rate in shared]
        return math.exp(fmean(map(math.log, reached)))

    def largest(some_or_all: Callable[[Iterable[bool]], bool], names: Sequence[str], at: Cells, position: str) -> float:
        good = [rate for rate in rates if some_or_all(a >= LEARNED for a in final(at, position, rate, names))]
        return max(good, default=math.nan)

    def spread(names: Sequence[str], rate: float | None, at: Cells, position: str) -> float:
        accuracies = final(at, position, best_rate(at, position, rates) if rate is None else rate, names)
        return 100 * (max(accuracies) - min(accuracies))

    everywhere = f"steps to {100 * EASIER:.0f}%, geometric mean of {len(shared)} settings"
    faster = (
        measure(f"settings that reach {100 * TARGET:.0f}%, of {len(settings)}", learned, True),
        *([measure(everywhere, steps, False, ratio=True)] if shared else []),
    )
    trains = f"largest rate that reaches {100 * LEARNED:.0f}% with"
    higher = (
        measure(f"{trains} at least one initialiser", partial(largest, any, NAMES), True, ratio=True),
        measure(f"{trains} all of Glorot and He", partial(largest, all, SCALED), True, ratio=True),
    )
    accuracies = "range of the accuracies of Glorot and He in points"
    less_sensitive = (
        measure(f"{accuracies}, rate {SLOW:g}", partial(spread, SCALED, SLOW), False),
        measure(f"{accuracies}, best rate of each column", partial(spread, SCALED, None), False),
        measure("the same, including random normal", partial(spread, NAMES, None), False),
    )
    return (
        Claim("Faster", faster),
        Claim("Higher learning rates", higher),
        Claim("Less sensitive to the initialiser", less_sensitive),
    )


def final(at: Cells, position: str, rate: float, names: Sequence[str]) -> list[float]:
    """Accuracies after the last step."""
    return [at[position, name, rate].accuracy or 0.0 for name in names]


def best_rate(at: Cells, position: str, rates: Sequence[float]) -> float:
    """The rate with the highest median final accuracy over all initialisers except zeros."""
    return max((median(final(at, position, rate, NAMES)), rate) for rate in rates)[1]


def steps_to(cell: Cell, every: int, target: float = TARGET) -> int | None:
    """The first evaluated step with an accuracy of at least `target`; None: never."""
    return next((every * number for number, accuracy in enumerate(cell.accuracies, 1) if accuracy >= target), None)
