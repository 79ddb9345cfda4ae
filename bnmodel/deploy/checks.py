"""The promises made of an exported file, each a function that measures it: → (held, the numbers in words).

`held` runs one and turns whatever a runtime raises into a broken promise, so that all failures gather.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import ExportedFile, Run, load_file

# The largest difference allowed in a row of outputs, where its largest is up to 10 in size; else a millionth of that.
# Log-probabilities of what a digit cannot be reach −30, where float32 numbers are 1.9e-6 apart, and roundings add up.
TOLERANCE = 1e-5
# Of the network's own rounding in float32. Runtimes choose other algorithms for a convolution (Winograd's, blocked
# sums), which round up to three times as much as the eager one in networks of some depth.
ROUNDINGS = 4
BATCHES = (1, 2, 7, 64, 257)
CANVASES = ((8, 8), (28, 28), (280, 280), (56, 1600), (1200, 900), (4096, 4096))
# what batch norm is made of, in the words of the three formats; none of it may remain in a folded network
BATCH_NORM_OPERATORS = ("batch_norm", "batchnorm", "rsqrt", "sqrt", "var_mean", "reciprocal", "addcmul")

Finding = tuple[bool, str]


@dataclass(frozen=True)
class Check:
    """One promise about one file, held or broken, with the numbers."""

    promise: str
    file: str
    passed: bool
    detail: str


def held(promise: str, file: str, check: Callable[..., Finding], *arguments: object) -> Check:
    try:
        return Check(promise, file, *check(*arguments))
    except Exception as error:  # whatever it is, the promise is not held
        return Check(promise, file, False, (str(error).strip().splitlines() or [type(error).__name__])[0][:200])


def names(file: ExportedFile, input: str, outputs: Sequence[str]) -> Finding:
    expected = f"{input} → {', '.join(outputs)}"
    received = f"{file.input} → {', '.join(outputs if file.outputs is None else file.outputs)}"
    return expected == received, expected if expected == received else f"expected {expected}, received {received}"


def shapes(run: Run, golden: Golden, batched: bool) -> Finding:
    """Every input gives outputs of the golden ones' shapes and types; where the input is a batch, for all BATCHES."""
    cases = zip(golden.inputs, golden.outputs, strict=True)
    for array, outputs in cases if not batched else ((resized(golden.inputs, n), golden.outputs[0]) for n in BATCHES):
        expected = [([len(array), *o.shape[1:]] if batched else list(o.shape), str(o.dtype)) for o in outputs]
        received = [(list(output.shape), str(output.dtype)) for output in run(array)]
        if expected != received:
            return False, f"input {list(array.shape)}: expected {expected}, received {received}"
    sizes = BATCHES if batched else sorted({array.shape[:2] for array in golden.inputs})
    return True, ("batches of " if batched else "canvases of ") + ", ".join(str(size) for size in sizes)


def folded(file: ExportedFile, kept: Sequence[str]) -> Finding:
    """No batch-norm arithmetic in the graph, unless the certificate says which norms could not be folded."""
    left = sorted(op for op in file.operators if any(part in op.lower() for part in BATCH_NORM_OPERATORS))
    if kept:
        return True, f"not folded, and said so: {', '.join(kept)}"
    return not left, f"found {', '.join(left)}" if left else f"{len(file.operators)} kinds of operators, none of it"


def agreement(
    run: Run, inputs: Sequence[np.ndarray], expected: Sequence[list[np.ndarray]], rounding: float = 0.0
) -> Finding:
    """All outputs are those expected, to TOLERANCE; in the first, of scores, no label differs.

    `rounding`: how far the network itself is from what is expected, in float32; ROUNDINGS times that is always allowed.
    """
    received = [run(array) for array in inputs]
    pairs = [(a, b) for got, want in zip(received, expected, strict=True) for a, b in zip(got, want, strict=True)]
    scores = [(got[0], want[0]) for got, want in zip(received, expected, strict=True)]
    labels = sum(int((got.argmax(-1) != want.argmax(-1)).sum()) for got, want in scores if got.shape == want.shape)
    count = sum(int(np.prod(want.shape[:-1])) for _, want in scores)
    largest = max(largest_difference(a, b) for a, b in pairs)
    detail = f"{count:,} answers, largest difference {largest:.1e}, labels differing {labels}"
    if rounding:
        detail += f"; the network's own rounding {rounding:.1e}"
    return all(close(a, b, rounding) for a, b in pairs) and labels == 0, detail


def batch_invariance(run: Run, inputs: Sequence[np.ndarray]) -> Finding:
    """A sample's answer is the same alone, among others and in any order; a network in train mode breaks this."""
    batch = np.concatenate(inputs)
    together = run(batch)[0]
    alone = np.concatenate([run(batch[i : i + 1])[0] for i in range(len(batch))])
    backwards = run(np.ascontiguousarray(batch[::-1]))[0][::-1]
    difference = max(largest_difference(together, alone), largest_difference(together, backwards))
    remedy = (
        ""
        if close(alone, together) and close(backwards, together)
        else "; answers depend on the batch, as in train mode: export the eval copy"
    )
    return not remedy, f"largest difference {difference:.1e}{remedy}"


def determinism(path: Path, file: ExportedFile, array: np.ndarray) -> Finding:
    """The same bits from three runs, and the same values with one thread and with two."""
    answers: list[np.ndarray] = []
    for threads in (1, 2):
        with torch_threads(threads):
            # ONNX Runtime fixes its threads when it loads
            run = load_file(path, threads).run if path.suffix == ".onnx" else file.run
            runs = [run(array)[0] for _ in range(5)][2:]  # TorchScript specialises during the first two
        if not all(np.array_equal(runs[0], other) for other in runs):
            return False, f"repeated runs differ with {threads} threads"
        answers.append(runs[0])
    difference = largest_difference(*answers)
    return close(answers[0], answers[1]), f"3 runs alike, largest difference of 1 and 2 threads {difference:.1e}"


def resized(batches: Sequence[np.ndarray], count: int) -> np.ndarray:
    """One batch of `count` samples, those of `batches` over and over."""
    samples = np.concatenate(batches)
    return np.resize(samples, (count, *samples.shape[1:]))


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference; infinite where either is not finite or the shapes differ."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0))


def close(a: np.ndarray, b: np.ndarray, rounding: float = 0.0) -> bool:
    """Whether no value of `a` is further from that of `b` than TOLERANCE, or ROUNDINGS times the `rounding`, allows."""
    if largest_difference(a, b) == float("inf"):
        return False
    size = np.abs(b).max(axis=-1, keepdims=True, initial=0.0) if b.ndim else np.abs(b)
    allowed = np.maximum(TOLERANCE * np.maximum(1, size / 10), ROUNDINGS * rounding)
    return bool((np.abs(a.astype(np.float64) - b) <= allowed).all())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
