"""The README's tables, from the results of the benchmarks: nothing in them is typed by hand.

A table stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import RESULTS
from bnmodel.experiments import convergence_sweep
from bnmodel.experiments.convergence import PLACES
from bnmodel.experiments.convergence_sweep import EASIER, SLOW, SWEEP_FILE, TARGET
from bnmodel.io import atomic_write
from export.bench import read_rows

ROOT = RESULTS.parents[1]
README = ROOT / "README.md"
ELSEWHERE = {
    "export": ROOT / "checkpoints/lecture/bench.json",
    "convergence": SWEEP_FILE,
    "holds": RESULTS / "load.json",
}  # the others: RESULTS


def training(result: dict[str, Any]) -> str:
    slow, fast = result["lecture_loop"], result["fast"]
    rows = {
        "the lecture's loop as written": (slow, f"{slow['seconds_to_target']:.0f} (epoch {slow['epochs']})", "1 ×"),
        f"`fast`, at its end {fast['best_validation_loss']:.4f}": (
            fast,
            f"{max(fast['seconds_to_target']):.0f}",
            f"**{result['times_sooner']:.0f} × sooner**",
        ),
    }
    lines = [
        f"| training on MNIST | s per epoch | s to validation loss {result['target_validation_loss']:.4f} | |",
        "|---|---|---|---|",
    ]
    for name, (run, to_target, times) in rows.items():
        lines.append(f"| {name} | {run['seconds_per_epoch']:.1f} | {to_target} | {times} |")
    return "\n".join(lines)


def batchnorm(result: dict[str, Any]) -> str:
    lines = ["| batch norm, forward and backward | torch | CustomBatchNorm | × torch |", "|---|---|---|---|"]
    for name, layers in result["cases"].items():
        torchs, ours = layers["torch"]["milliseconds"], layers["CustomBatchNorm"]
        lines.append(f"| {name} | {torchs:.2f} ms | {ours['milliseconds']:.2f} ms | {ours['times_torch']:.2f} × |")
    naive = result["cases"][next(iter(result["cases"]))]["naive"]["times_torch"]
    return "\n".join([*lines, "", f"Written naively, in five steps, the first of these takes {naive:.1f} ×."])


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
        f"test digits another label and is up to {result['largest_difference']:.2f} off: it breaks the promise of the "
        f"others and is not shipped."
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
            f"| opening the page → usable | {result['page_usable_s']['median']:.1f} s | |",
            f"| “Train live” → its first point | {result['live_training_first_point_ms']} ms | |",
            "",
            f"A control changed → its new picture, p50 in ms over all controls of a tab (of its slowest): {of_tabs}.",
        )
    )


def holds(load: dict[str, Any]) -> str:
    hostile, faults, space = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("hostile", "faults", "space")
    )
    trainings, files = faults["trainings"], faults["files"]
    answer, tab, soak = load["answer_ms"], load["tab_ms"], load["soak"]
    rows = (
        (
            "trainings killed (twenty times), crowded, interrupted, diverging, without disk",
            f"{trainings['passed']} of {trainings['tests']} tests: refused in words, or ended with the same bits",
            "faults",
        ),
        (
            "checkpoints, certificates, histories, exported files: cut, emptied, flipped, swapped",
            f"{files['passed']} of {files['tests']} tests: refused by name, the app goes on",
            "faults",
        ),
        (
            f"{hostile['cases']:,} hostile requests of {len(hostile['kinds'])} kinds",
            f"{hostile['broken']} met with a traceback, a leak, a request elsewhere, or no answer",
            "hostile",
        ),
        (
            f"{load['visitors']} visitors drawing at once",
            f"{load['answers_per_s']} answers/s; p50 {answer['p50']}, p95 {answer['p95']}, p99 {answer['p99']} ms; "
            f"first tab p50 {tab['p50']}, p95 {tab['p95']} ms; {load['errors']} errors, every answer as when alone",
            "load",
        ),
        (
            f"{soak['minutes']} minutes' soak, {soak['answers']:,} answers",
            f"{soak['errors']} errors; memory {soak['memory_mb'][0]:,} → {soak['memory_mb'][-1]:,} MB, "
            f"{soak['growth_mb_per_10000_answers']:g} MB in 10,000 answers",
            "load",
        ),
        (
            "a fresh clone in an empty environment",
            f"installed in {space['install_s']} s ({space['environment_gb']} GB); answers {space['first_start_s']} s "
            f"after its first start, {space['later_starts_s']} s after later ones",
            "space",
        ),
    )
    lines = [f"| {tried} | {seen} | `benchmarks.{by}` |" for tried, seen, by in rows]
    return "\n".join(["| tried | seen | by |", "|---|---|---|", *lines])


def recogniser(result: dict[str, Any]) -> str:
    columns = [
        "",
        "parameters",
        "ONNX",
        "a digit, one core",
        "validation loss",
        "validation",
        "test",
        "calibration error",
    ]
    columns += next(iter(result["models"].values()))["strangers"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, model in result["models"].items():
        cells = [
            f"`{name}`",
            f"{model['parameters']:,}",
            f"{model['onnx_bytes'] / 1e6:.1f} MB",
            f"{_milliseconds_a_digit(ROOT / 'checkpoints' / name):.2g} ms",
            f"{model['validation_loss']:.4f}",
            f"{model['validation_accuracy']:.2%}",
            f"{model['test_accuracy']:.2%} ({model['test_wrong']} wrong)",
            f"{model['validation_calibration_error']:.2%}",
            *(f"{kind['not_doubtful']:.0%}" for kind in model["strangers"].values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _milliseconds_a_digit(folder: Path) -> float:
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
    return f"`robust`, refitted, reads {listed} of the test digits{mean}."


def augmentation(result: dict[str, Any]) -> str:
    lines = ["| on one thread | µs a digit | of a training step of `robust` |", "|---|---|---|"]
    for name, numbers in result["works"].items():
        lines.append(f"| {name} | {numbers['microseconds_per_digit']:.0f} | {numbers['share_of_step']:.2f} × |")
    return "\n".join(lines)


def drawing(result: dict[str, Any]) -> str:
    models = result["models"]
    chosen = ["plain", "brush 1 %", "brush 12 %", "very shaky hand", "turned +15°"]
    chosen += ["crossed sevens", "ones with foot and flag", "small-headed nines", "closed fours"]
    head = "".join(f" {name} |" for name in models)
    lines = [f"| drawn digits, {result['digits']:,} a condition |{head}", "|---|" + "---|" * len(models)]
    count = len(next(iter(models.values()))["conditions"])
    mean = "".join(f" **{model['mean']:.1%}** |" for model in models.values())
    worst = "".join(f" {m['worst']['accuracy']:.1%}, {m['worst']['condition']} |" for m in models.values())
    lines += [f"| mean of {count} conditions |{mean}", f"| worst of them |{worst}"]
    for name in chosen:
        lines.append(f"| {name} |" + "".join(f" {m['conditions'][name]['accuracy']:.1%} |" for m in models.values()))
    return "\n".join(lines)


def convergence(_: dict[str, Any]) -> str:
    sweep = convergence_sweep.read()
    found = convergence_sweep.claims(sweep)
    rows: dict[str, dict[str, Any]] = {
        f"settings of {found.settings} that reach {TARGET:.0%} within {sweep.steps} steps": found.learned,
        f"median steps to {EASIER:.0%}, where all three come to it ({found.shared} settings)": found.median_steps,
        "largest learning rate that trains with some initialiser": found.largest_rate,
        "largest learning rate that trains with each of Glorot and He": found.largest_rate_of_all,
        f"spread over Glorot and He at learning rate {SLOW:g}, points": _points(found.spread_scaled_slow),
        "the same at each one's best learning rate": _points(found.spread_scaled),
        "with random normal (standard deviation 1) as well": _points(found.spread),
    }
    lines = ["| | " + " | ".join(f"batch norm {place}" for place in PLACES) + " |", "|---" * 4 + "|"]
    for name, values in rows.items():
        lines.append(f"| {name} | " + " | ".join(_plain(values[place]) for place in PLACES) + " |")
    return "\n".join(lines)


def _points(shares: dict[str, float]) -> dict[str, float]:
    return {place: round(100 * share, 1) for place, share in shares.items()}


def _plain(number: float | None) -> str:
    return "none" if number is None else f"{number:g}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "training": training,
    "batchnorm": batchnorm,
    "race": race,
    "export": export,
    "int8": int8,
    "app": app,
    "holds": holds,
    "recogniser": recogniser,
    "seeds": seeds,
    "augmentation": augmentation,
    "drawing": drawing,
    "convergence": convergence,
}


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with every table whose result exists written anew."""
    for name, table in TABLES.items():
        path = ELSEWHERE.get(name, results / f"{name}.json")
        if path.exists() and f"<!-- {name} -->" in text:
            before, _, rest = text.partition(f"<!-- {name} -->\n")
            _, _, after = rest.partition("<!-- end -->")
            text = f"{before}<!-- {name} -->\n{table(json.loads(path.read_text()))}\n<!-- end -->{after}"
    return text


def main() -> None:
    text = filled(README.read_text(encoding="utf-8"))
    with atomic_write(README) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
