"""The checks of the certificate, one function each, which returns whether it passed and the numbers in words.

`held` runs one and reports an error of a runtime as a failed check, so that the others are still checked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bnmodel.deploy.allowance import Yardstick, judge
from bnmodel.deploy.errors import first_line
from bnmodel.deploy.golden import Arrays, Golden
from bnmodel.deploy.loading import ExportedFile, Run, load_file
from bnmodel.deploy.onnx_worker.messages import without_preamble

BATCHES = (1, 2, 7, 64, 257)
LARGEST_BATCH = 1 << 19  # elements of the inputs, and of the outputs
BATCH_NORMS = ("batch_norm", "batchnorm")
STATISTICS = ("rsqrt", "sqrt", "var_mean", "reciprocal")  # of a batch norm in train mode, in any of the formats


class Result(NamedTuple):
    """What a check found.

    Attributes:
        passed: whether the guarantee holds.
        detail: what was measured, in words.
        difference: largest difference from the expected values, where values were compared.
        share: the largest difference relative to its tolerance; above 1 the check fails.
    """

    passed: bool
    detail: str
    difference: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Check:
    """The result of one check of one file; see `Result` for the other attributes."""

    name: str
    file: str
    passed: bool
    detail: str
    difference: float | None = None
    share: float | None = None


def held(name: str, file: str, check: Callable[..., Result], *arguments: object) -> Check:
    try:
        return Check(name, file, *check(*arguments))
    except Exception as error:  # runtimes have no common base class of errors
        return Check(name, file, False, first_line(RuntimeError(without_preamble(str(error))), 200))


def names(file: ExportedFile, inputs: Sequence[str], outputs: Sequence[str]) -> Result:
    expected = f"{', '.join(inputs)} → {', '.join(outputs)}"
    received = f"{', '.join(file.inputs)} → {', '.join(outputs if file.outputs is None else file.outputs)}"
    same = expected == received
    return Result(same, expected if same else f"expected {expected}, received {received}")


def shapes(run: Run, golden: Golden, described: Sequence[dict[str, Any]], batched: bool) -> Result:
    """Outputs have the shapes and types of the golden ones; if the input is a batch, at several batch sizes."""
    cases = list(zip(golden.inputs, golden.outputs, strict=True))
    if batched:
        golden = of_one_size(golden)
        cases = [(resized(golden.inputs, n), resized(golden.outputs, n)) for n in batches(golden)]
    types = [str(one["type"]).replace("bfloat16", "float32") for one in described]
    for arrays, outputs in cases:
        expected = [(list(output.shape), kind) for output, kind in zip(outputs, types, strict=True)]
        received = [(list(output.shape), str(output.dtype)) for output in run(*arrays)]
        if expected != received:
            sizes = ", ".join(str(list(array.shape)) for array in arrays)
            return Result(False, f"input {sizes}: expected {expected}, received {received}")
    if batched:
        return Result(True, "batches of " + ", ".join(str(size) for size in batches(golden)))
    sizes_tried = dict.fromkeys("×".join(map(str, arrays[0].shape)) for arrays, _ in cases)
    return Result(True, "inputs of " + ", ".join(sizes_tried))


def folded(file: ExportedFile, kept: Sequence[str], recorded: Sequence[str] | None) -> Result:
    """The graph computes no batch statistics, and has no batch norm unless the certificate names those that are kept.

    `recorded`: operators that compute statistics for other layers, which the file had when it was certified.
    """
    left = [op for op in file.operators if any(part in op.lower() for part in BATCH_NORMS)]
    extra = set(statistics_operators(file)) - set(recorded if recorded is not None else ())
    if (left and not kept) or extra:
        return Result(False, f"found {', '.join(sorted({*([] if kept else left), *extra}))}")
    if kept:
        more = " …" if len(kept) > 5 else ""
        return Result(True, f"kept, as the certificate says: {', '.join(list(kept)[:5])}{more}")
    return Result(True, f"no batch norm among {len(file.operators)} kinds of operators")


def statistics_operators(file: ExportedFile) -> list[str]:
    return sorted(op for op in file.operators if any(part in op.lower() for part in STATISTICS))


def agreement(
    run: Run, inputs: Sequence[Arrays], expected: Sequence[Arrays], yardsticks: Sequence[Yardstick]
) -> Result:
    """All outputs are within the tolerance of those expected."""
    received = [run(*arrays) for arrays in inputs]
    return compared(received, expected, yardsticks)


def compared(received: Sequence[Arrays], expected: Sequence[Arrays], yardsticks: Sequence[Yardstick]) -> Result:
    passed, largest, worst, exact = True, 0.0, 0.0, 0
    for index, yardstick in enumerate(yardsticks):
        verdict = judge(yardstick, [got[index] for got in received], [want[index] for want in expected])
        passed &= verdict.passed
        if yardstick.exact:
            exact += int(verdict.difference) if np.isfinite(verdict.difference) else 1
        else:
            largest, worst = max(largest, verdict.difference), max(worst, verdict.share)
    detail = f"{len(expected):,} cases, largest difference {largest:.1e}, {worst:.0%} of what is allowed"
    if exact:
        detail += f", {exact} integers differ"
    return Result(passed, detail + differing_labels(received, expected), largest, worst)


def differing_labels(received: Sequence[Arrays], expected: Sequence[Arrays]) -> str:
    """The number of samples whose largest score differs; empty if the first output is not (N, C) or (C,) scores."""
    first = [want[0] for want in expected]
    scores = all(
        want.ndim in (1, 2) and np.issubdtype(want.dtype, np.floating) and want.shape[-1] > 1 for want in first
    )
    if not scores or any(got[0].shape != want.shape for got, want in zip(received, first, strict=True)):
        return ""
    differing = sum(
        int((got[0].argmax(-1) != want.argmax(-1)).sum()) for got, want in zip(received, first, strict=True)
    )
    return f", labels differing {differing}"


def batch_invariance(run: Run, golden: Golden, yardsticks: Sequence[Yardstick]) -> Result:
    """A sample's output is the same alone, in a batch and in any order; a network in train mode breaks this."""
    golden = of_one_size(golden)
    orders = [range(len(golden.inputs)), range(len(golden.inputs) - 1, -1, -1)]
    sizes = [len(golden.inputs), *(size for size in batches(golden) if size != len(golden.inputs))]
    cases = [([golden.inputs[i] for i in order], [golden.outputs[i] for i in order]) for order in orders]
    together = [(resized(a, sizes[0]), resized(b, sizes[0])) for a, b in cases]
    together += [(resized(golden.inputs, size), resized(golden.outputs, size)) for size in sizes[1:]]
    received = [run(*arrays) for arrays, _ in together]
    found = compared(received, [outputs for _, outputs in together], yardsticks)
    if found.passed:
        return found
    return found._replace(detail=f"{found.detail}; answers depend on the batch, as in train mode, or differ altogether")


def determinism(path: Path, file: ExportedFile, arrays: Arrays, yardsticks: Sequence[Yardstick]) -> Result:
    """Repeated runs give the same bits, and one thread and two the same values within the tolerance."""
    answers: list[Arrays] = []
    for threads in (1, 2):
        with torch_threads(threads):
            # ONNX Runtime fixes the number of threads when it loads a file
            run = load_file(path, threads).run if path.suffix == ".onnx" else file.run
            runs = [run(*arrays) for _ in range(3 - threads)]
        if not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(runs[0], runs[-1], strict=True)):
            return Result(False, f"repeated runs differ with {threads} threads")
        answers.append(runs[0])
    found = compared(answers[:1], answers[1:], yardsticks)
    return found._replace(detail=f"repeated runs are identical; 1 and 2 threads: {found.detail}")


def batches(golden: Golden) -> list[int]:
    """Batch sizes to try: BATCHES in multiples of a case, up to LARGEST_BATCH elements."""
    unit = len(golden.inputs[0][0])
    elements = max(sum(array[:1].size for array in arrays) for arrays in (golden.inputs[0], golden.outputs[0]))
    sizes = [size * unit for size in BATCHES if size * unit * elements <= LARGEST_BATCH]
    return sizes if len(sizes) > 1 else [unit, 2 * unit]


def of_one_size(golden: Golden) -> Golden:
    """The cases that can be batched with the first one."""
    shapes = [[array.shape[1:] for array in arrays] for arrays in golden.inputs]
    indices = [index for index, one in enumerate(shapes) if one == shapes[0]]
    return Golden([golden.inputs[index] for index in indices], [golden.outputs[index] for index in indices])


def resized(cases: Sequence[Arrays], count: int) -> Arrays:
    """One batch of `count` samples: those of `cases`, repeated or cut."""
    result = []
    for index in range(len(cases[0])):
        samples = np.concatenate([case[index] for case in cases])
        result.append(samples[np.arange(count) % len(samples)])
    return result


def remembered(run: Run) -> Run:
    """`run` with a cache, so that each input is run once."""
    answers: dict[tuple[object, ...], Arrays] = {}

    def run_once(*arrays: np.ndarray) -> Arrays:
        key = tuple((array.shape, hash(array.tobytes())) for array in arrays)
        if key not in answers:
            answers[key] = run(*arrays)
        return answers[key]

    return run_once


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
