"""Inspect an ONNX file: a JSON request on standard input, JSON answers on standard output, of which the last counts.

Run by `bnmodel.deploy.onnx_inspection`. It imports nothing of bnmodel, so that it starts quickly.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import certifying
import folding
import onnx
import quantised
import rules
import running
from graph import FileError, Graph, batch_norms, infer_ranks, load, nested, opset
from limits import apply_limits
from onnx import ModelProto

UNFINISHED = "its run did not end within the limits of time and memory"
QUANTISED = 0.1  # largest effect of the batch, relative to the largest output, that an unknown quantisation explains


def inspect(path: Path, external_data: bool, fold_to: Path | None) -> dict[str, Any]:
    model = load(path, external_data)
    version = opset(model)
    inspected = list(nested(Graph(model.graph, infer_ranks(model))))
    found = [
        finding
        for graph in inspected
        for rule in (rules.modes, rules.statistics, rules.dropout, rules.unfolded)
        for finding in rule(graph, version)
    ]
    if fold_to is None:  # so that these findings are known, whatever the run does
        _print(_answer(model, inspected, found, running.Invariance(False, UNFINISHED)))
    invariance = running.measure(model)
    explained = any(finding["code"] in ("training-mode", "batch-statistics-in-eval") for finding in found)
    found += invariance_findings(model, inspected[0], invariance, explained)
    answer = _answer(model, inspected, found, invariance)
    if fold_to is not None:
        answer["folded"] = write_folded(model, version, fold_to)
    return answer


def _answer(
    model: ModelProto, inspected: list[Graph], found: list[rules.Found], invariance: running.Invariance
) -> dict[str, Any]:
    order = ("error", "warning", "note")
    return {
        "findings": sorted(found, key=lambda finding: order.index(finding["severity"])),
        "batch_norms": sum(len(batch_norms(graph)) for graph in inspected),
        "opset": opset(model),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "batch_invariance": {
            "checked": invariance.checked,
            "difference": invariance.difference if math.isfinite(invariance.difference) else None,  # as in JSON
            "reason": invariance.reason,
        },
    }


def _print(answer: dict[str, Any]) -> None:
    print("\n" + json.dumps(answer), flush=True)


def invariance_findings(
    model: ModelProto, graph: Graph, measured: running.Invariance, explained: bool
) -> list[rules.Found]:
    """Findings from running the model; unless `explained`, also the reductions over the batch axis."""
    found: list[rules.Found] = []
    if measured.checked and measured.difference > running.TOLERANCE:
        message = "the output for the same sample changes with the rest of its batch, "
        if math.isfinite(measured.difference):
            message += f"by up to {_percent(measured.difference)} of the largest output"
        else:
            message += "in its shape or in which values are finite"
        layers = rules.dynamically_quantised(graph)
        if layers and not explained and by_quantisation(model, measured):
            message += f": {layers[0]} takes its scale from the whole batch (dynamic quantisation)"
            remedy = "run one sample at a time, or quantise with static scales"
            found.append(rules.found("batch-dependent", "warning", layers[0], message, remedy))
        else:
            found.append(rules.found("batch-dependent", "error", "", message, rules.INSTEAD))
            for node in [] if explained else rules.batch_reductions(graph):
                message = f"{node.op_type} reduces over the batch axis and affects an output"
                remedy = "use running statistics in eval mode; export the eval copy"
                found.append(rules.found("batch-statistics-in-eval", "error", graph.label(node), message, remedy))
    if measured.fixed is not None:
        message = f"the file only accepts batches of {measured.fixed}"
        remedy = 'export with dynamic_shapes=({0: torch.export.Dim("N")},)'
        found.append(rules.found("fixed-batch", "note", "", message, remedy))
    return found


def by_quantisation(model: ModelProto, measured: running.Invariance) -> bool:
    """Whether dynamic quantisation alone makes the output depend on the batch: in float32 it does not."""
    plain = quantised.without_quantisation(model)
    in_float = running.measure(plain) if plain is not None else None
    if in_float is None or not in_float.checked:
        return bool(measured.difference <= QUANTISED)
    return bool(in_float.difference <= running.TOLERANCE)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"


def write_folded(model: ModelProto, version: int, path: Path) -> dict[str, Any]:
    """Fold, compare with the original model, and write.

    Raises:
        FileError: the folded model differs by more than rounding, or one of the two cannot be run.
    """
    before = ModelProto()
    before.CopyFrom(model)
    layers = folding.fold(model, version)
    folding.drop_unused(model)
    kept = {name for node in model.graph.node for name in node.output}  # a value may be folded away in its turn
    try:
        difference, allowed = certifying.largest_difference(before, model, [each for each in layers if each in kept])
    except RuntimeError as error:
        raise FileError(f"the folded model cannot be certified: {error}") from error
    if difference > allowed:
        raise FileError(f"expected a difference of at most {allowed:.1e} after folding, received {difference:.1e}")
    onnx.save(model, str(path))
    return {"batch_norms": len(layers), "difference": difference, "allowed": allowed}


def main() -> None:
    read = json.load(sys.stdin)
    apply_limits(read["limits"])
    request = read["request"]
    fold_to = Path(request["fold_to"]) if request["fold_to"] else None
    try:
        answer = inspect(Path(request["path"]), request["external_data"], fold_to)
    except FileError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": "the model needs more memory than is allowed"}
    except Exception as error:
        answer = {"error": f"the model cannot be analysed ({type(error).__name__}: {str(error)[:200]})"}
    _print(answer)


if __name__ == "__main__":
    main()
