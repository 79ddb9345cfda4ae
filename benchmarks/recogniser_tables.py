"""The tables on the recogniser: its accuracy, its training and its training data."""

from statistics import median
from typing import Any

from benchmarks import CHECKPOINTS
from benchmarks.markdown import table
from export.bench import read_rows

STYLES = (  # the conditions of benchmarks.drawing that the table lists
    "plain", "brush 1%", "brush 12%", "very shaky hand", "turned +15°", "crossed sevens", "ones with foot and flag",
    "ones with a long flag", "slashed zeros", "sevens in one stroke", "small-headed nines", "closed fours",
    "fours like a bolt",
)  # fmt: skip


def onnx_on_one_digit(model: str) -> dict[str, Any]:
    """What `python -m export bench` measured with ONNX Runtime on one thread, for a single digit."""
    (row,) = (
        row
        for row in read_rows(CHECKPOINTS / model)
        if (row["runtime"], row["threads"], row["batch"]) == ("onnx", 1, 1)
    )
    return row


def recogniser(result: dict[str, Any]) -> str:
    models = result["models"]
    rows: dict[str, list[str]] = {
        "parameters": [f"{model['parameters']:,}" for model in models.values()],
        "ONNX file": [f"{model['onnx_bytes'] / 1e6:.1f} MB" for model in models.values()],
        "time per digit, one core": [f"{1e3 * onnx_on_one_digit(name)['latency_s']:.2g} ms" for name in models],
        "validation loss": [f"{model['validation_loss']:.4f}" for model in models.values()],
        "validation accuracy": [f"{model['validation_accuracy']:.2%}" for model in models.values()],
        "test accuracy": [f"{model['test_accuracy']:.2%} ({model['test_wrong']} wrong)" for model in models.values()],
        "calibration error, validation": [f"{model['validation_calibration_error']:.2%}" for model in models.values()],
    }
    others = [model["scikit_learn_digits"] for model in models.values()]
    rows["scikit-learn's digits, 8 × 8 pixels"] = [f"{other['accuracy']:.1%}" for other in others]
    for kind in next(iter(models.values()))["non_digits"]:
        rows[f"non-digits accepted: {kind}"] = [
            f"{model['non_digits'][kind]['not_doubtful']:.0%}" for model in models.values()
        ]
    return table(["", *(f"`{name}`" for name in models)], ([what, *cells] for what, cells in rows.items()))


def seeds(result: dict[str, Any]) -> str:
    listed = ", ".join(f"{share:.2%} (seed {seed})" for seed, share in result["test_accuracy"].items())
    mean = f"; mean **{result['mean']:.2%}**" if len(result["test_accuracy"]) > 1 else ""
    return f"Test accuracy of `robust`, refitted: {listed}{mean}."


def drawing(result: dict[str, Any]) -> str:
    models = result["models"].values()
    count = len(next(iter(models))["conditions"])
    rows = [
        [f"mean of {count} conditions", *(f"**{model['mean']:.1%}**" for model in models)],
        ["worst of them", *(f"{m['worst']['accuracy']:.1%}, {m['worst']['condition']}" for m in models)],
        *([name, *(f"{model['conditions'][name]['accuracy']:.1%}" for model in models)] for name in STYLES),
    ]
    return table([f"redrawn digits, {result['digits']:,} per condition", *result["models"]], rows)


def pictures(result: dict[str, Any]) -> str:
    """Every condition with its 95% interval; numbers and single digits have different last columns."""
    rows = []
    for name, row in result["models"]["robust"].items():
        others = (row.get("sure_and_wrong", row.get("read_as_one_sure_digit")), row.get("doubted"))
        shares = ("" if share is None else f"{share:.0%}" for share in others)
        rows.append([name, f"{row['accuracy']:.0%}", f"{row['low']:.0%} – {row['high']:.0%}", *shares])
    head = [f"{result['pictures']} pictures per condition, read by `robust`", "right", "95% interval"]
    return table([*head, "wrong, or one digit, at ≥ 90%", "doubted"], rows)


def training(result: dict[str, Any]) -> str:
    slow, fast = result["lecture_loop"], result["fast"]
    rows = (
        (
            "the lecture's loop as written",
            f"{slow['seconds_per_epoch']:.1f}",
            f"{slow['seconds_to_target']:.0f} (epoch {slow['epochs']})",
            "1 ×",
        ),
        (
            f"`fast`, final loss {fast['best_validation_loss']:.4f}",
            f"{fast['seconds_per_epoch']:.1f}",
            f"{max(fast['seconds_to_target']):.0f}",
            f"**{result['times_sooner']:.0f} × faster**",
        ),
    )
    to_target = f"s to validation loss {result['target_validation_loss']:.4f}"
    return table(("training on MNIST", "s per epoch", to_target, ""), rows)


def race(result: dict[str, Any]) -> str:
    rows = [
        (title, f"{median(result[name]['processor_seconds']):.1f} s", f"{result[name]['mean_test_accuracy']:.2%}")
        for name, title in (("opponent", "baseline"), ("sprint", "`sprint`"))
    ]
    rows.append(("", f"**{result['share_of_the_opponents_time']:.2f} ×**", ""))
    return table(("one epoch on all 60,000 digits", "processor time", "test accuracy, mean of five seeds"), rows)


def augmentation(result: dict[str, Any]) -> str:
    rows = (
        (name, f"{numbers['microseconds_per_digit']:.0f}", f"{numbers['share_of_step']:.2f} ×")
        for name, numbers in result["works"].items()
    )
    return table(("on one thread", "µs per digit", "share of a training step of `robust`"), rows)
