"""Write the tables of README.md and docs/*.md from the results of the benchmarks.

A table is between `<!-- NAME -->` and `<!-- end -->`, and is not edited by hand.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT, layout, networks
from benchmarks.diagnosis.table import confusion_table, named_of_all
from benchmarks.layer_tables import accuracy, batchnorm, batchnorm_cuda
from benchmarks.markdown import replaced, table
from benchmarks.recogniser_tables import (
    augmentation,
    drawing,
    onnx_on_one_digit,
    pictures,
    race,
    recogniser,
    seeds,
    training,
)
from benchmarks.runtimes.table import runtimes_table
from bnmodel.experiments import convergence_sweep
from bnmodel.experiments.claims import claims
from bnmodel.experiments.convergence_sweep import SWEEP_FILE
from bnmodel.experiments.gradients import POSITIONS, STYLES
from bnmodel.io import atomic_write

ELSEWHERE = {
    "export": ROOT / "checkpoints/lecture/bench.json",
    "convergence": SWEEP_FILE,
    "robustness": RESULTS / "load.json",
    "summary": RESULTS / "recogniser.json",
}  # the others: RESULTS


def export(result: dict[str, Any]) -> str:
    head = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads in (1, 2) for batch in (1, 64, 1024)]
    rows: dict[str, list[str]] = {}
    for row in result["rows"]:
        cells = rows.setdefault(row["runtime"], [row["runtime"]])
        cells.append(f"{row['times_eager']:.1f} × ({row['images_per_s']:,.0f}/s)")
    return table(["× eager", *head], rows.values())


def int8(result: dict[str, Any]) -> str:
    return (
        f"Quantising the ONNX file to 8 bits ({result['bytes'] / 1000:.0f} KB) changes the label of "
        f"{result['labels_differing']} of MNIST's 10,000 test digits,\nand the outputs by up to "
        f"{result['largest_difference']:.2f}. The 8-bit file fails the certificate's checks and is not shipped."
    )


def app(result: dict[str, Any]) -> str:
    answer, panel = result["pen_up_to_answer_ms"], result["pen_up_to_eval_train_panel_ms"]
    changes = result["control_to_picture_p50_ms"]
    of_tabs = ", ".join(
        f"{tab} {times['all']} ({max(times['controls'].values())})"
        for tab, times in sorted(changes.items(), key=lambda item: item[1]["all"])
    )
    busy = result["pen_up_to_answer_while_three_train_ms"]
    rows = (
        ("pen up → answer on the pad", f"{answer['p50']} ms", f"{answer['p95']} ms"),
        ("the same while three visitors train live", f"{busy['p50']} ms", f"{busy['p95']} ms"),
        ("pen up → both answers in the first tab", f"{panel['p50']} ms", f"{panel['p95']} ms"),
        ("page opened → usable", f"{result['page_usable_s']['median']:.1f} s", ""),
        ("“Train live” → first point of the curves", f"{result['live_training_first_point_ms']} ms", ""),
    )
    times = table((f"in Chromium, {result['drawings']} drawings", "p50", "p95"), rows)
    controls = f"Control changed → new picture, p50 in ms over all controls of a tab (and of the slowest): {of_tabs}."
    return f"{times}\n\n{controls}"


def summary(recognisers: dict[str, Any]) -> str:
    """The README's table: at most ten comparisons."""
    drawn, layers, answers = _result("drawing")["models"], _result("batchnorm"), _result("app")
    conditions = len(drawn["robust"]["conditions"])
    trained, raced, diagnosed, exported = (_result(n) for n in ("training", "race", "diagnosis", "networks"))
    robust, lecture = (recognisers["models"][name]["test_accuracy"] for name in ("robust", "lecture"))
    step = next(case for name, case in layers["cases"].items() if name.startswith("training step"))
    onnx = onnx_on_one_digit("lecture")["times_eager"]
    while_training = answers["pen_up_to_answer_while_three_train_ms"]["p50"]
    outcomes = Counter(network["outcome"] for network in exported["networks"])
    wrong = outcomes.total() - outcomes["certified"] - outcomes["refused"]
    rows = (
        ("accuracy of `robust` / `lecture` on MNIST's test set", f"{robust:.2%} / {lecture:.2%}"),
        (
            f"accuracy of `robust` / `lecture` on redrawn digits, mean of {conditions} conditions",
            f"{drawn['robust']['mean']:.1%} / {drawn['lecture']['mean']:.1%}",
        ),
        (
            f"training to validation loss {trained['target_validation_loss']:.4f}: recipe `fast` against the lecture's "
            f"loop",
            f"{trained['times_sooner']:.0f} × faster",
        ),
        (
            "one epoch to about 99% test accuracy: recipe `sprint` against a public recipe without batch norm",
            f"{raced['share_of_the_opponents_time']:.2f} × the time",
        ),
        (
            "training step of SimpleCNN: `CustomBatchNorm` against torch's layer",
            f"{step['CustomBatchNorm']['times_torch']:.2f} × the time",
        ),
        ("one digit on one thread: exported ONNX file of `lecture` against eager mode", f"{onnx:.1f} × as fast"),
        ("`diagnose`: planted faults found; false alarms in check-ups of healthy networks", named_of_all(diagnosed)),
        (
            "`certify` on networks of torchvision, timm and our own: certified / refused with a reason / wrong",
            f"{outcomes['certified']} / {outcomes['refused']} / {wrong}",
        ),
        (
            "median time from pen-up to the answer in the browser: alone / while three visitors train",
            f"{answers['pen_up_to_answer_ms']['p50']} ms / {while_training} ms",
        ),
    )
    return table(("measurement", "result"), rows)


def _result(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text()))


def robustness(load: dict[str, Any]) -> str:
    hostile, faults, space = (_result(name) for name in ("hostile", "faults", "space"))
    trainings, files = faults["trainings"], faults["files"]
    answer, tab, soak = load["answer_ms"], load["tab_ms"], load["soak"]
    rows = (
        (
            "training: killed (twenty times), twice in one folder, interrupted, diverging, disk full",
            f"{trainings['passed']} of {trainings['tests']} tests pass: a clear error, or bit-identical weights",
            "faults",
        ),
        (
            "checkpoints, certificates, histories, exported files: truncated, emptied, altered, swapped",
            f"{files['passed']} of {files['tests']} tests pass: an error names the file, and the app starts without it",
            "faults",
        ),
        (
            f"{hostile['cases']:,} hostile requests of {len(hostile['kinds'])} kinds",
            f"{hostile['broken']} tracebacks, leaked files, outbound requests or missing replies",
            "fuzzing",
        ),
        (
            f"{load['visitors']} simultaneous visitors",
            f"{load['answers_per_s']} answers/s; p50 {answer['p50']}, p95 {answer['p95']}, p99 {answer['p99']} ms; "
            f"first tab p50 {tab['p50']}, p95 {tab['p95']} ms; {load['errors']} errors, "
            f"every answer equals that to a single visitor",
            "load",
        ),
        (
            f"{soak['visitors']} visitors without pauses for {soak['minutes']} minutes, {soak['answers']:,} answers",
            f"{soak['errors']} errors; memory {soak['memory_mb'][0]:,} → {soak['memory_mb'][-1]:,} MB, "
            f"{soak['growth_mb_per_10000_answers']:g} MB per 10,000 answers (linear fit after the first minute)",
            "load",
        ),
        (
            "a fresh clone in an empty environment",
            f"installed in {space['install_s']} s ({space['environment_gb']} GB); the app answers "
            f"{space['first_start_s']} s after the first start, {space['later_starts_s']} s after later ones",
            "space",
        ),
    )
    return table(("test", "result", "command"), ((*row[:2], f"`python -m benchmarks.{row[2]}`") for row in rows))


def convergence(_: dict[str, Any]) -> str:
    rows = []
    for claim in claims(convergence_sweep.read()):
        rows.append([f"**{claim.name}: {claim.verdict}**", *[""] * len(POSITIONS)])
        for measure in claim.measures:
            values = [str(measure.interval(position)) for position in POSITIONS]
            better = [False, *(measure.better(position) for position in POSITIONS[1:])]
            rows.append([measure.name, *(f"**{v}**" if b else v for v, b in zip(values, better, strict=True))])
    return table(["", *(STYLES[position][2] for position in POSITIONS)], rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "training": training,
    "accuracy": accuracy,
    "batchnorm": batchnorm,
    "batchnorm_cuda": batchnorm_cuda,
    "race": race,
    "export": export,
    "int8": int8,
    "app": app,
    "robustness": robustness,
    "summary": summary,
    "recogniser": recogniser,
    "seeds": seeds,
    "augmentation": augmentation,
    "drawing": drawing,
    "pictures": pictures,
    "convergence": convergence,
    "diagnosis": confusion_table,
    "runtimes": runtimes_table,
    "networks": networks.summary,
}


def machines(results: Path = RESULTS) -> str:
    """Processor and versions of each group of results."""
    measured: dict[tuple[str, ...], list[str]] = {}
    for path in sorted(results.glob("*.json")):
        machine = json.loads(path.read_text())["machine"]
        key = machine.get("processor", "not recorded"), machine["torch"], machine["python"]
        measured.setdefault(key, []).append(path.stem)
    rows = ([*key, ", ".join(names)] for key, names in measured.items())
    return table(("processor", "torch", "Python", "results"), rows)


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with every table that has a result filled in."""
    for name, written in TABLES.items():
        path = ELSEWHERE.get(name, results / f"{name}.json")
        if path.exists() and f"<!-- {name} -->" in text:
            text = replaced(text, name, written(json.loads(path.read_text())))
    if "<!-- machines -->" in text:
        text = replaced(text, "machines", machines(results))
    return replaced(text, "layout", layout.listing(ROOT)) if "<!-- layout -->" in text else text


def documents() -> list[Path]:
    """The README and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    for path in documents():
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            with atomic_write(path) as temporary:
                temporary.write_text(after, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
