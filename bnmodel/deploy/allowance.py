"""The tolerance of the certificate: how far an exported file may be from its network.

The reference is the network in float64. Per output and channel c, a file may differ from it by

    max(4 · e_c, 4 · ē_c, 16 · u · m_c)

- e_c: the network's own error, evaluated in its own type (also with sums added up one element after the other), or in
  float64 with its parameters perturbed by ± 2 u at random, which stands for the rounding of folding and of products
- ē_c: the 95% quantile of e over the channels of about the same size (rounded log₄ m differs by at most 2)
- m_c: the largest |value| of the channel
- u: the unit roundoff, 2⁻²⁴ for float32

A runtime sums in another order than the network, so its rounding errors differ but have the same size. On a few samples
the error of one channel may be small by chance, hence ē_c. There is no absolute term, which could hide small outputs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROUNDINGS = 4.0
UNITS = 16.0
QUANTILE = 0.95  # not the median: channels that are mostly 0 have no error
NEIGHBOURS = 2.0  # powers of 4 by which channels of about the same size may differ
UNIT_ROUNDOFF = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
    "complex64": 2.0**-24,
}


@dataclass(frozen=True)
class Yardstick:
    """The network's own error in one output, from which the tolerance follows.

    Attributes:
        type: of the output, such as "float32".
        axis: of its channels; None if the output is judged as one channel.
        error: largest absolute error per channel; for integers, the share of values that differ.
    """

    type: str
    axis: int | None
    error: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Yardstick":
        return cls(content["type"], content["axis"], tuple(content["error"]))

    @property
    def exact(self) -> bool:
        """Integers and booleans have no rounding."""
        return self.type not in UNIT_ROUNDOFF


@dataclass(frozen=True)
class Judgement:
    """The comparison of one output with its reference.

    Attributes:
        passed: every value is within the tolerance.
        difference: the largest; infinite if a shape, or the position of a NaN or infinity, differs.
        share: the largest ratio of difference to tolerance.
    """

    passed: bool
    difference: float
    share: float


def measured(kind: str, axis: int | None, own: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> Yardstick:
    """The yardstick of an output of type `kind`, from the network's own values and those in float64.

    Raises:
        ValueError: shapes, or the positions of values that are not finite, differ.
    """
    if kind not in UNIT_ROUNDOFF:
        values = sum(array.size for array in exact)
        differing = sum(int((a != b).sum()) for a, b in zip(own, exact, strict=True))
        return Yardstick(kind, None, (differing / max(1, values),))
    errors = [_per_channel(_difference(a, b), axis) for a, b in zip(own, exact, strict=True)]
    largest = np.max(np.stack(errors), axis=0)
    if not np.isfinite(largest).all():
        raise ValueError("values that are not finite, at other positions than in float64")
    return Yardstick(kind, axis, tuple(float(f"{error:.3g}") for error in largest.tolist()))


def judge(yardstick: Yardstick, received: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Judgement:
    """Compare all arrays of one output with those expected."""
    if [array.shape for array in received] != [array.shape for array in expected]:
        return Judgement(False, float("inf"), float("inf"))
    if yardstick.exact:
        values = sum(array.size for array in expected)
        differing = sum(int((a != b).sum()) for a, b in zip(received, expected, strict=True))
        return Judgement(differing <= yardstick.error[0] * values + 0.5, float(differing), float(differing))
    differences = np.stack(
        [_per_channel(_difference(a, b), yardstick.axis) for a, b in zip(received, expected, strict=True)]
    )
    largest = differences.max(axis=0, initial=0.0)
    allowed = allowance(yardstick, expected)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(largest > 0, largest / allowed, 0.0)
    return Judgement(bool((largest <= allowed).all()), float(largest.max(initial=0.0)), float(shares.max(initial=0.0)))


def allowance(yardstick: Yardstick, expected: Sequence[np.ndarray]) -> np.ndarray:
    """(C,): largest difference allowed per channel of an output whose values in float64 are `expected`."""
    size = np.stack([_per_channel(_magnitude(array), yardstick.axis) for array in expected]).max(axis=0, initial=0.0)
    error = np.asarray(yardstick.error)
    unit = UNIT_ROUNDOFF[yardstick.type]
    allowed: np.ndarray = np.maximum(ROUNDINGS * np.maximum(error, _typical(error, size)), UNITS * unit * size)
    return allowed


def _typical(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(C,): per channel, the 95% quantile of the errors of channels of about the same size."""
    result = np.zeros_like(error)
    if not size.any():
        return result
    group = np.round(np.log2(np.maximum(size, size[size > 0].min())) / 2)
    for one in np.unique(group):
        result[group == one] = np.quantile(error[np.abs(group - one) <= NEIGHBOURS], QUANTILE)
    return result


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| per value, in float64; 0 for the same infinity or two NaNs, infinite if only one is NaN or infinite."""
    if a.shape != b.shape:
        raise ValueError(f"expected shape {list(b.shape)}, received {list(a.shape)}")
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    with np.errstate(invalid="ignore"):
        difference = np.abs(a.astype(wide) - b.astype(wide))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))


def _magnitude(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), np.abs(array), 0.0).astype(np.float64)


def _per_channel(values: np.ndarray, axis: int | None) -> np.ndarray:
    """(C,): the largest value per channel."""
    if axis is None:
        return np.array([values.max(initial=0.0)])
    largest: np.ndarray = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).max(axis=1, initial=0.0)
    return largest
