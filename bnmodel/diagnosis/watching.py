"""`watch`: measure the batch norms of a network while it trains."""

import csv
import json
import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, fields
from functools import partial
from numbers import Integral
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnmodel.diagnosis import state
from bnmodel.diagnosis.batches import require_functions
from bnmodel.diagnosis.batchnorms import batches_tracked, initial_weight, named_batch_norms, running_statistics, takes
from bnmodel.diagnosis.borrowing import bare
from bnmodel.diagnosis.deviation import NOTEWORTHY
from bnmodel.diagnosis.examination import TINY
from bnmodel.diagnosis.hooks import Hook
from bnmodel.diagnosis.measurement import Measurement, measured, rows_of, thinned
from bnmodel.diagnosis.moments import array
from bnmodel.findings import Finding
from bnmodel.io import atomic_write, without_infinities

logger = logging.getLogger(__name__)

CONFIRMED = 3  # measurements in a row before a finding is certain
USUAL_MOMENTUM = 0.1
UNCONVERGED = 0.1  # minimum weight of the initial values at the end for a finding


class Watch:
    """Records a network's batch norms as it trains; see `watch`.

    Attributes:
        measurements: of every `every`-th training step.
        findings: certain ones, once per layer and code.
    """

    def __init__(
        self,
        model: nn.Module,
        every: int,
        file: Path | None,
        tensorboard: Any,
        on_finding: Callable[[Finding], None] | None,
    ) -> None:
        self.model = bare(model)
        self.norms = named_batch_norms(model)
        self.every, self.file, self.on_finding = every, file, on_finding
        self.measurements: list[Measurement] = []
        self.findings: list[Finding] = []
        self.step = 0
        self._handles: list[RemovableHandle] = []
        self._pending: list[tuple[str, int | None, int, Tensor, bool]] = []
        self._suspected: dict[tuple[str, str], int] = {}
        self._latest: dict[str, deque[tuple[float, float]]] = defaultdict(partial(deque, maxlen=CONFIRMED))  # per layer
        self._frozen: set[str] = set()  # layers seen in eval mode
        self._exit = ExitStack()
        self._writer = _summary_writer(tensorboard)
        self._own_writer = self._writer is not tensorboard

    def start(self) -> "Watch":
        """Attach the hooks, as entering the context does."""
        handle = self.model.register_forward_pre_hook(Hook(self._before_step))
        self._exit.callback(handle.remove)
        self._exit.callback(self._detach)
        return self

    def stop(self) -> None:
        """Remove the hooks and write the file. The measurements are kept."""
        self._collect()
        self._exit.close()
        for layer in self._latest:
            self._judge_at_end(layer)
        if not self.norms:
            logger.warning("watch: no batch norm found; expected layers of torch's batch norm classes or of subclasses")
        elif not self.step:
            logger.warning("watch: no training step was seen; watch the module that the training loop calls")
        if self.file is not None:
            self.write(self.file)
        if self._writer is not None:
            self._writer.flush()
            if self._own_writer:
                self._writer.close()  # ends its thread; it opens a new file if it is used again

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def write(self, path: Path | str) -> None:
        """Write all measurements atomically, as JSON if `path` ends in .json, else as CSV."""
        rows = [asdict(each) for each in self.measurements]
        with atomic_write(path) as temporary:
            if Path(path).suffix == ".json":
                content = {"measurements": rows, "findings": [finding.to_dict() for finding in self.findings]}
                text = json.dumps(without_infinities(content), indent=1, allow_nan=False)
                temporary.write_text(text + "\n", encoding="utf-8")
            else:
                with temporary.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, [field.name for field in fields(Measurement)])
                    writer.writeheader()
                    writer.writerows(rows)

    def _before_step(self, module: nn.Module, args: Any) -> None:
        if self._handles:
            self._detach()
        if not module.training or not torch.is_grad_enabled():
            return
        if self._pending:
            self._collect()
        if self.step % self.every == 0:  # only then: a hook costs microseconds per call
            for name, norm in self.norms.items():
                if norm is module:  # its hooks run already
                    self._before_norm(name, norm, args)
                else:
                    self._handles.append(norm.register_forward_pre_hook(Hook(partial(self._before_norm, name))))
        self.step += 1

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def _before_norm(self, name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        norm = self.norms[name]
        if not args or not takes(norm, args[0]) or args[0].numel() == 0:
            return
        if not norm.training:
            if name not in self._frozen and (finding := state.never_updated(name, norm)):
                self._report(finding)
            self._frozen.add(name)
            return
        x = args[0].detach()
        count = batches_tracked(norm) if x.device.type == "cpu" else None
        tracked = running_statistics(norm) is not None
        self._pending.append((name, count, x.numel() // x.size(1), rows_of(norm, thinned(x)), tracked))

    def _collect(self) -> None:
        """Read the measurements of the previous step, which a GPU has finished by now."""
        pending, self._pending = self._pending, []
        judged: set[str] = set()  # by its first call of the step
        for name, batches, values, rows, tracked in pending:
            in_numpy = array(rows)
            numbers = measured(in_numpy, tracked, self.norms[name].eps)
            known = [None if math.isnan(each) else each for each in numbers]
            measurement = Measurement(self.step - 1, name, batches, known[0], known[1], values, known[2], known[3])
            self.measurements.append(measurement)
            self._write_scalars(measurement)
            if name not in judged:
                self._judge(name, numbers, values, state.negligible(np.abs(in_numpy[2])))
            judged.add(name)

    def _judge(self, name: str, numbers: list[float], values: int, negligible: np.ndarray) -> None:
        norm = self.norms[name]
        running = running_statistics(norm)
        distance, ratio, amplified, _ = numbers
        self._latest[name].append((distance, ratio))
        found = [state.batch_statistics(name, norm), state.dead(name, norm, negligible)]
        if running is not None and not (math.isfinite(distance) and 0 < ratio < math.inf):
            found.append(state.invalid(name, norm, self.model))
        if running is not None and (norm.momentum == 0 or not norm.track_running_stats):
            found.append(state.never_updated(name, norm))
        if values < TINY:
            found.append(
                Finding(
                    "tiny-batches",
                    "warning",
                    name,
                    f"{values} values per channel: batch means are off by {values**-0.5:.2f} σ",
                    "model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # or larger batches, or nn.GroupNorm",
                )
            )
        if norm.momentum is not None and norm.momentum >= 0.5 and self.step > 1:
            found.append(
                Finding(
                    "noisy-statistics",
                    "warning",
                    name,
                    f"momentum {norm.momentum:g} averages {(2 - norm.momentum) / norm.momentum:.3g} batches",
                    f"model.get_submodule({name!r}).momentum = 0.1",
                )
            )
        if not amplified < state.HALF_AMPLIFICATION:
            found.append(state.exploding(name, norm, None))
        serious = [finding for finding in found if finding is not None and finding.severity != "note"]
        known = {(finding.layer, finding.code) for finding in (*self.findings, *serious)}
        for key in [key for key in self._suspected if key[0] == name and key not in known]:
            del self._suspected[key]  # not in a row
        for finding in serious:
            self._report(finding)

    def _judge_at_end(self, name: str) -> None:
        """Report an average near its initial values; with the usual momentum, the run was only a short trial."""
        norm = self.norms[name]
        distance, ratio = (median(values) for values in zip(*self._latest[name], strict=True))
        far = distance >= NOTEWORTHY or ratio > math.exp(NOTEWORTHY) or ratio < math.exp(-NOTEWORTHY)
        momentum = norm.momentum or USUAL_MOMENTUM
        if momentum < USUAL_MOMENTUM and initial_weight(norm) >= UNCONVERGED and far:
            message = (
                f"momentum {norm.momentum:g}, {batches_tracked(norm)} batches: {initial_weight(norm):.0%} of the "
                f"initial values remain; the running mean is {distance:.2f} σ from that of a batch, "
                f"whose variance is {ratio:.3g} times the running variance"
            )
            remedy = f"{state.RECALIBRATE}  # in training: a larger momentum (0.1) or more steps"
            self._report(Finding("unconverged-average", "warning", name, message, remedy), certain=1)

    def _report(self, finding: Finding, certain: int = CONFIRMED) -> None:
        key = finding.layer, finding.code
        self._suspected[key] = self._suspected.get(key, 0) + 1
        if self._suspected[key] != (1 if finding.severity == "error" else certain):
            return
        self.findings.append(finding)
        if self.on_finding is not None:
            self.on_finding(finding)
        else:
            logger.warning("%s", finding)

    def _write_scalars(self, measurement: Measurement) -> None:
        if self._writer is None:
            return
        for name in ("distance", "variance_ratio", "amplification", "smallest_scale"):
            value = getattr(measurement, name)
            if value is not None:
                self._writer.add_scalar(f"batch norm {name}/{measurement.layer}", value, measurement.step)


def _summary_writer(target: Any) -> Any:
    """`target` itself if it is a writer or None, else a SummaryWriter to that folder."""
    if target is None or hasattr(target, "add_scalar"):
        return target
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard: expected TensorBoard to be installed; pip install tensorboard") from error
    return SummaryWriter(str(target))


def watch(
    model: nn.Module,
    *,
    every: int = 50,
    file: Path | str | None = None,
    tensorboard: Any = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> Watch:
    """Record the batch norms of `model` while it trains, and warn as soon as a finding is certain.

        with bnmodel.watch(model, file="norms.csv"):
            train(model)

    Or `watching = bnmodel.watch(model).start()` … `watching.stop()`. Passes in eval mode or without gradients are
    skipped. The batch of each layer is compared with its running statistics, on about 4,096 values per channel.

    Args:
        model: any module with batch norms.
        every: training steps between measurements, ≥ 1; fewer cost more time.
        file: .csv or .json, written at the end.
        tensorboard: a SummaryWriter, or a folder for one.
        on_finding: called with each certain finding; the default logs a warning.

    Raises:
        TypeError: `model` is no module, or `on_finding` no function.
        ValueError: `every` is no integer of at least 1, or a file with another ending.
        ImportError: a folder for TensorBoard, which is not installed.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected an nn.Module, received {type(model).__name__}")
    require_functions(on_finding=on_finding)
    if not isinstance(every, (int, Integral)) or every < 1:
        raise ValueError(f"every: expected an integer of at least 1 step, received {every!r}")
    if file is not None and Path(file).suffix not in (".csv", ".json"):
        raise ValueError(f"file: expected .csv or .json, received {Path(file).name}")
    return Watch(model, every, None if file is None else Path(file), tensorboard, on_finding)
