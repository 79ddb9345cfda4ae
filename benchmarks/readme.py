"""Write the tables of README.md and docs/*.md from the results of the benchmarks.

A table stands between `<!-- NAME -->` and `<!-- end -->`; nothing in it is typed by hand.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import RESULTS, layout, networks
from benchmarks.diagnosis.table import confusion_table, named_of_all
from benchmarks.layer_tables import accuracy, batchnorm, batchnorm_cuda
from benchmarks.runtimes.table import runtimes_table
from bnmodel.experiments import convergence_sweep
from bnmodel.experiments.claims import claims
from bnmodel.experiments.convergence_sweep import SWEEP_FILE
from bnmodel.experiments.gradients import PLACES
from bnmodel.io import atomic_write
from export.bench import read_rows

ROOT = RESULTS.parents[1]
ELSEWHERE = {
    "export": ROOT / "checkpoints/lecture/bench.json",
    "convergence": SWEEP_FILE,
    "robustness": RESULTS / "load.json",
    "summary": RESULTS / "recogniser.json",
}  # the others: RESULTS


def training(result: dict[str, Any]) -> str:
    slow, fast = result["lecture_loop"], result["fast"]
    rows = {
        "the lecture's loop as written": (slow, f"{slow['seconds_to_target']:.0f} (epoch {slow['epochs']})", "1 ×"),
        f"`fast`, final loss {fast['best_validation_loss']:.4f}": (
            fast,
            f"{max(fast['seconds_to_target']):.0f}",
            f"**{result['times_sooner']:.0f} × faster**",
        ),
    }
    lines = [
        f"| training on MNIST | s per epoch | s to validation loss {result['target_validation_loss']:.4f} | |",
        "|---|---|---|---|",
    ]
    for name, (run, to_target, times) in rows.items():
        lines.append(f"| {name} | {run['seconds_per_epoch']:.1f} | {to_target} | {times} |")
    return "\n".join(lines)


def race(result: dict[str, Any]) -> str:
    lines = ["| one epoch over all 60,000 | processor time | MNIST test, mean of five seeds |", "|---|---|---|"]
    for name in ("opponent", "sprint"):
        runs = result[name]
        seconds = median(runs["processor_seconds"])
        lines.append(f"| {name} | {seconds:.1f} s | {runs['mean_test_accuracy']:.2%} |")
    return "\n".join([*lines, f"| | **{result['share_of_the_opponents_time']:.2f} ×** | |"])


def export(result: dict[str, Any]) -> str:
    rows = result["rows"]
    head = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads in (1, 2) for batch in (1, 64, 1024)]
    lines = ["| × eager | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for runtime in dict.fromkeys(row["runtime"] for row in rows):
        cells = [
            f"{row['times_eager']:.1f} × ({row['images_per_s']:,.0f}/s)" for row in rows if row["runtime"] == runtime
        ]
        lines.append(f"| {runtime} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def int8(result: dict[str, Any]) -> str:
    return (
        f"An 8-bit ONNX file ({result['bytes'] / 1000:.0f} KB) gives {result['labels_differing']} of MNIST's 10,000 "
        f"test digits another label, and differs by up to {result['largest_difference']:.2f}. It fails the checks of "
        f"the other files and is not shipped."
    )


def app(result: dict[str, Any]) -> str:
    answer, panel = result["pen_up_to_answer_ms"], result["pen_up_to_eval_train_panel_ms"]
    changes = result["control_to_picture_p50_ms"]
    of_tabs = ", ".join(
        f"{tab} {times['all']} ({max(times['controls'].values())})"
        for tab, times in sorted(changes.items(), key=lambda item: item[1]["all"])
    )
    training = result["pen_up_to_answer_while_three_train_ms"]
    return "\n".join(
        (
            f"| in Chromium, {result['drawings']} drawings | p50 | p95 |",
            "|---|---|---|",
            f"| pen up → the answer | {answer['p50']} ms | {answer['p95']} ms |",
            f"| the same while three visitors train live | {training['p50']} ms | {training['p95']} ms |",
            f"| pen up → eval beside train | {panel['p50']} ms | {panel['p95']} ms |",
            f"| page opened → usable | {result['page_usable_s']['median']:.1f} s | |",
            f"| “Train live” → its first point | {result['live_training_first_point_ms']} ms | |",
            "",
            f"Control changed → new picture, p50 in ms over all controls of a tab (and of its slowest): {of_tabs}.",
        )
    )


def summary(recognisers: dict[str, Any]) -> str:
    """The README's table: at most ten comparisons."""
    drawn, layers, app = _result("drawing")["models"], _result("batchnorm"), _result("app")
    trained, race, diagnosed, exported = (_result(n) for n in ("training", "race", "diagnosis", "networks"))
    robust, lecture = (recognisers["models"][name]["test_accuracy"] for name in ("robust", "lecture"))
    step = next(case for name, case in layers["cases"].items() if name.startswith("training step"))
    onnx = next(
        row["times_eager"]
        for row in read_rows(ROOT / "checkpoints/lecture")
        if (row["runtime"], row["threads"], row["batch"]) == ("onnx", 1, 1)
    )
    while_training = app["pen_up_to_answer_while_three_train_ms"]["p50"]
    outcomes = Counter(network["outcome"] for network in exported["networks"])
    wrong = outcomes.total() - outcomes["certified"] - outcomes["refused"]
    rows = (
        ("accuracy on MNIST's test set: `robust`, `lecture`", f"{robust:.2%}, {lecture:.2%}"),
        (
            f"the same on redrawn digits, mean of {len(drawn['robust']['conditions'])} conditions",
            f"{drawn['robust']['mean']:.1%}, {drawn['lecture']['mean']:.1%}",
        ),
        (
            f"time to the lecture's validation loss, {trained['target_validation_loss']:.4f}: recipe `fast`, the "
            f"lecture's loop",
            f"{trained['times_sooner']:.0f} × sooner",
        ),
        (
            "one epoch to 99 % on the test set: recipe `sprint`, a public recipe without batch norm",
            f"{race['share_of_the_opponents_time']:.2f} × the time",
        ),
        ("training step of SimpleCNN: `CustomBatchNorm`, torch's layer", _times(step)),
        ("one digit on one thread: exported ONNX file, eager network", f"{onnx:.1f} × as fast"),
        ("planted faults that `diagnose` names; check-ups of healthy networks with an alarm", named_of_all(diagnosed)),
        (
            "networks of torchvision, timm and our own: certified, refused with a reason, wrong",
            f"{outcomes['certified']}, {outcomes['refused']}, {wrong}",
        ),
        (
            "pen up → answer in the browser, median: alone, while three visitors train",
            f"{app['pen_up_to_answer_ms']['p50']} ms, {while_training} ms",
        ),
    )
    return "\n".join(["| compared | result |", "|---|---|", *(f"| {what} | {seen} |" for what, seen in rows)])


def _times(case: dict[str, Any]) -> str:
    return f"{case['CustomBatchNorm']['times_torch']:.2f} × the time"


def _result(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text()))


def robustness(load: dict[str, Any]) -> str:
    hostile, faults, space = (_result(name) for name in ("hostile", "faults", "space"))
    trainings, files = faults["trainings"], faults["files"]
    answer, tab, soak = load["answer_ms"], load["tab_ms"], load["soak"]
    rows = (
        (
            "trainings: killed (twenty times), two in one folder, interrupted, diverging, disk full",
            f"{trainings['passed']} of {trainings['tests']} tests pass: a clear error, or the same weights bit for bit",
            "faults",
        ),
        (
            "checkpoints, certificates, histories, exported files: truncated, emptied, altered, swapped",
            f"{files['passed']} of {files['tests']} tests pass: the error names the file, the app starts without it",
            "faults",
        ),
        (
            f"{hostile['cases']:,} hostile requests of {len(hostile['kinds'])} kinds",
            f"{hostile['broken']} answered by a traceback, a leaked file, an outbound request, or not at all",
            "fuzzing",
        ),
        (
            f"{load['visitors']} visitors draw at the same time",
            f"{load['answers_per_s']} answers/s; p50 {answer['p50']}, p95 {answer['p95']}, p99 {answer['p99']} ms; "
            f"first tab p50 {tab['p50']}, p95 {tab['p95']} ms; {load['errors']} errors, "
            f"each answer the same as for a single visitor",
            "load",
        ),
        (
            f"the same for {soak['minutes']} minutes, {soak['answers']:,} answers",
            f"{soak['errors']} errors; memory {soak['memory_mb'][0]:,} → {soak['memory_mb'][-1]:,} MB, "
            f"{soak['growth_mb_per_10000_answers']:g} MB per 10,000 answers",
            "load",
        ),
        (
            "a fresh clone in an empty environment",
            f"installed in {space['install_s']} s ({space['environment_gb']} GB); the app answers "
            f"{space['first_start_s']} s after the first start, {space['later_starts_s']} s after later ones",
            "space",
        ),
    )
    lines = [f"| {test} | {result} | `python -m benchmarks.{command}` |" for test, result, command in rows]
    return "\n".join(["| test | result | command |", "|---|---|---|", *lines])


def recogniser(result: dict[str, Any]) -> str:
    models = result["models"]
    rows: dict[str, list[str]] = {
        "parameters": [f"{model['parameters']:,}" for model in models.values()],
        "ONNX file": [f"{model['onnx_bytes'] / 1e6:.1f} MB" for model in models.values()],
        "time per digit, one core": [
            f"{_milliseconds_per_digit(ROOT / 'checkpoints' / name):.2g} ms" for name in models
        ],
        "validation loss": [f"{model['validation_loss']:.4f}" for model in models.values()],
        "validation accuracy": [f"{model['validation_accuracy']:.2%}" for model in models.values()],
        "test accuracy": [f"{model['test_accuracy']:.2%} ({model['test_wrong']} wrong)" for model in models.values()],
        "calibration error, validation": [f"{model['validation_calibration_error']:.2%}" for model in models.values()],
    }
    for kind in next(iter(models.values()))["strangers"]:
        rows[f"non-digits answered: {kind}"] = [
            f"{model['strangers'][kind]['not_doubtful']:.0%}" for model in models.values()
        ]
    head = ["| | " + " | ".join(f"`{name}`" for name in models) + " |", "|---" * (len(models) + 1) + "|"]
    return "\n".join([*head, *(f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items())])


def _milliseconds_per_digit(folder: Path) -> float:
    """With ONNX Runtime on one thread, as `python -m export bench` measured it."""
    (seconds,) = (
        row["latency_s"]
        for row in read_rows(folder)
        if (row["runtime"], row["threads"], row["batch"]) == ("onnx", 1, 1)
    )
    return 1e3 * seconds


def seeds(result: dict[str, Any]) -> str:
    listed = ", ".join(f"{share:.2%} (seed {seed})" for seed, share in result["test_accuracy"].items())
    mean = f"; mean **{result['mean']:.2%}**" if len(result["test_accuracy"]) > 1 else ""
    return f"Test accuracy of `robust`, refitted: {listed}{mean}."


def augmentation(result: dict[str, Any]) -> str:
    lines = ["| on one thread | µs per digit | share of a training step of `robust` |", "|---|---|---|"]
    for name, numbers in result["works"].items():
        lines.append(f"| {name} | {numbers['microseconds_per_digit']:.0f} | {numbers['share_of_step']:.2f} × |")
    return "\n".join(lines)


def drawing(result: dict[str, Any]) -> str:
    models = result["models"]
    chosen = ["plain", "brush 1 %", "brush 12 %", "very shaky hand", "turned +15°"]
    chosen += ["crossed sevens", "ones with foot and flag", "ones with a long flag", "slashed zeros"]
    chosen += ["sevens in one stroke", "small-headed nines", "closed fours", "fours like a bolt"]
    head = "".join(f" {name} |" for name in models)
    lines = [f"| redrawn digits, {result['digits']:,} per condition |{head}", "|---|" + "---|" * len(models)]
    count = len(next(iter(models.values()))["conditions"])
    mean = "".join(f" **{model['mean']:.1%}** |" for model in models.values())
    worst = "".join(f" {m['worst']['accuracy']:.1%}, {m['worst']['condition']} |" for m in models.values())
    lines += [f"| mean of {count} conditions |{mean}", f"| worst of them |{worst}"]
    for name in chosen:
        lines.append(f"| {name} |" + "".join(f" {m['conditions'][name]['accuracy']:.1%} |" for m in models.values()))
    return "\n".join(lines)


def pictures(result: dict[str, Any]) -> str:
    """Every condition with its 95 % interval; numbers and single digits have different last columns."""
    lines = [
        f"| {result['pictures']} pictures per condition, read by `robust` | right | 95 % interval "
        "| wrong at 90 % or more | doubted |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["models"]["robust"].items():
        others = (row.get("sure_and_wrong", row.get("read_as_one_sure_digit")), row.get("doubted"))
        shares = " | ".join("" if share is None else f"{share:.0%}" for share in others)
        lines.append(f"| {name} | {row['accuracy']:.0%} | {row['low']:.0%} – {row['high']:.0%} | {shares} |")
    return "\n".join(lines)


def convergence(_: dict[str, Any]) -> str:
    sweep = convergence_sweep.read()
    lines = ["| | " + " | ".join(f"batch norm {place}" for place in PLACES) + " |", "|---" * 4 + "|"]
    for claim in claims(sweep):
        lines.append(f"| **{claim.name}: {claim.verdict}** | | | |")
        for measure in claim.measures:
            values = [str(measure.interval(place)) for place in PLACES]
            values[1:] = [
                f"**{value}**" if measure.better(place) else value
                for place, value in zip(PLACES[1:], values[1:], strict=True)
            ]
            lines.append(f"| {measure.name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


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
    """Which results were measured on which processor, with which versions."""
    measured: dict[tuple[str, ...], list[str]] = {}
    for path in sorted(results.glob("*.json")):
        machine = json.loads(path.read_text())["machine"]
        key = machine.get("processor", "not recorded"), machine["torch"], machine["python"]
        measured.setdefault(key, []).append(path.stem)
    lines = ["| processor | torch | Python | results |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(key)} | {', '.join(names)} |" for key, names in measured.items())])


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with every table written anew whose result exists."""
    for name, table in TABLES.items():
        path = ELSEWHERE.get(name, results / f"{name}.json")
        if path.exists() and f"<!-- {name} -->" in text:
            text = _replaced(text, name, table(json.loads(path.read_text())))
    if "<!-- machines -->" in text:
        text = _replaced(text, "machines", machines(results))
    return _replaced(text, "layout", layout.listing(ROOT)) if "<!-- layout -->" in text else text


def _replaced(text: str, name: str, table: str) -> str:
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    _, _, after = rest.partition("<!-- end -->")
    return f"{before}<!-- {name} -->\n{table}\n<!-- end -->{after}"


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
