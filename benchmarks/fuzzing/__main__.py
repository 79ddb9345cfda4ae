"""Send more than 6,000 hostile requests; exit with 1 if a property is violated.  python -m benchmarks.fuzzing [SEED]"""

import secrets
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import write
from benchmarks.fuzzing.attack import KINDS, NO_HTTP, PROPERTIES, Attack, Report, describe, listening, memory
from benchmarks.fuzzing.files import encoded, seven
from benchmarks.running_app import Served, serve_logged
from demo.server.memory import EVERY

MOST_MORE = 2000  # MB of memory that the app may need meanwhile
MOST_KEPT = 300  # MB that it may keep


def main() -> None:
    started, seed = time.monotonic(), int(sys.argv[1]) if len(sys.argv) > 1 else 0
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_logged(Path(folder) / "log") as served,
        listening() as (listener, visits),
    ):
        secret, canary = secrets.token_hex(16), Path(folder) / "canary.png"
        canary.write_bytes(encoded(seven(), "PNG") + secret.encode())
        attack = Attack(served, describe(served, canary, listener), secret)
        attack.check("at first")
        memories = [memory(served)]
        for name, (kind, number) in KINDS.items():
            attack.run(name, kind, number, seed)
            print(f"{name}: {dict(attack.report.answers[name])}, {memory(served)} MB", flush=True)
            if name == "edges":
                memories.append(memory_at_rest(served))
        attack.run_no_http(NO_HTTP, seed)
        memories.append(memory_at_rest(served))
    first, before, after = memories
    report = attack.report
    broken = violations(report, visits, after["peak"] - before["now"], after["now"] - before["now"])
    result = {
        "seed": seed,
        "cases": sum(answers.total() for answers in report.answers.values()),
        "seconds": round(time.monotonic() - started),
        "memory_mb": {
            "started": first["now"],
            "after valid requests": before["now"],
            "peak": after["peak"],
            "after hostile requests": after["now"],
        },
        "broken": len(broken),
    }
    kinds = {
        name: {
            "cases": answers.total(),
            "slowest_s": round(report.slowest[name], 2),
            "answers": dict(answers.most_common()),
        }
        for name, answers in report.answers.items()
    }
    write("hostile", {**result, "kinds": kinds})
    print("\n".join(broken))
    print("\n".join(f"{name}: {value}" for name, value in result.items()))
    sys.exit(bool(broken))


def violations(report: Report, visits: list[str], more: int, kept: int) -> list[str]:
    """A line per violated property. `more`, `kept`: MB of memory needed meanwhile, and kept."""
    broken = [f"{PROPERTIES[name]}: {line}" for name, lines in report.broken.items() for line in lines]
    broken += [f"the app calls nobody: {visit}" for visit in visits]
    if more > MOST_MORE:
        broken.append(f"memory: expected at most {MOST_MORE} MB more, received {more}")
    if kept > MOST_KEPT:
        broken.append(f"memory: expected at most {MOST_KEPT} MB kept, received {kept}")
    return broken


def memory_at_rest(served: Served) -> dict[str, int]:
    """The app's memory once it has given back what it can."""
    time.sleep(EVERY + 5)
    return memory(served)


if __name__ == "__main__":
    main()
