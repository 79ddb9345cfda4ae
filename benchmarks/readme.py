"""The README's tables, from the results of the benchmarks: nothing in them is typed by hand.

A table stands between `<!-- NAME -->` and `<!-- end -->`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import RESULTS
from bnmodel.files import atomic_write

BENCH = RESULTS.parents[1] / "checkpoints/lecture/bench.json"
README = RESULTS.parents[1] / "README.md"


def training(result: dict[str, Any]) -> str:
    slow, fast = result["lecture_loop"], result["fast"]
    seconds = max(fast["seconds_to_target"])
    return "\n".join(
        (
            f"| training on MNIST | s per epoch | s to validation loss {result['target_validation_loss']:.4f} | |",
            "|---|---|---|---|",
            f"| the lecture's loop as written | {slow['seconds_per_epoch']:.1f} | "
            f"{slow['seconds_to_target']:.0f} (epoch {slow['epochs']}) | 1 × |",
            f"| `fast` | {fast['seconds_per_epoch']:.1f} | {seconds:.0f} | **{result['times_sooner']:.0f} × sooner** |",
        )
    )


def batchnorm(result: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {result['microseconds'][name]:.0f} µs | {ratio:.1f} × |"
        for name, ratio in result["times_torch"].items()
    ]
    return "\n".join(("| the layer alone, forward and backward | time | × torch |", "|---|---|---|", *rows))


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
    return "\n".join(
        (
            f"| in Chromium, {result['drawings']} drawings | p50 | p95 |",
            "|---|---|---|",
            f"| pen up → the answer | {answer['p50']} ms | {answer['p95']} ms |",
            f"| pen up → eval beside train | {panel['p50']} ms | {panel['p95']} ms |",
            f"| opening the page → usable | {result['page_usable_s']['median']:.1f} s | |",
        )
    )


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "training": training,
    "batchnorm": batchnorm,
    "export": export,
    "int8": int8,
    "app": app,
}


def filled(text: str, results: Path = RESULTS) -> str:
    """`text` with every table whose result exists written anew."""
    for name, table in TABLES.items():
        path = BENCH if name == "export" else results / f"{name}.json"
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
