"""The confusion table of planted faults and reported codes as Markdown."""

from typing import Any

from benchmarks.markdown import table


def confusion_table(result: dict[str, Any]) -> str:
    """A row per planted fault, then a paragraph on healthy networks and time."""
    rows = []
    for name, row in result["faults"].items():
        serious = [_times(code, c, ("error", "warning")) for code, c in row["reported"].items()]
        notes = [_times(code, c, ("note",)) for code, c in row["reported"].items()]
        cells = [", ".join(sorted(filter(None, part))) or "–" for part in (serious, notes)]
        rows.append([name, f"`{row['expected']}`", *cells])
    found, times = result["healthy"], result["time"].items()
    others = (
        f"{result['seeds']} seeds per fault. Of {found['checkups']} check-ups of {found['networks']} healthy networks, "
        f"{len(found['alarms'])} reported an error or a warning.\n"
        "Cost of a check-up, in evaluation passes over the same 256 samples in batches of 16: "
        + ", ".join(f"{name} {ratio['sound']:.1f} (drifted {ratio['drifted']:.1f})" for name, ratio in times)
        + ".\nCost of `watch` per training step: "
        + ", ".join(f"{name} {100 * max(share, 0):.1f}%" for name, share in result["watch"].items())
        + "."
    )
    head = ("planted fault", "expected", "reported as error or warning", "as note")
    return f"{table(head, rows)}\n\n{others}"


def named_of_all(result: dict[str, Any]) -> str:
    """Number of planted faults reported with the expected code for every seed, and number of false alarms."""
    faults, found = result["faults"].values(), result["healthy"]
    named = sum(sum(row["reported"].get(row["expected"], {}).values()) == result["seeds"] for row in faults)
    return f"{named} of {len(faults)}; {len(found['alarms'])} of {found['checkups']}"


def _times(code: str, count: dict[str, int], severities: tuple[str, ...]) -> str:
    total = sum(count.get(severity, 0) for severity in severities)
    return f"`{code}` {total}×" if total else ""
