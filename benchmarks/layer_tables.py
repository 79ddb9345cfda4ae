"""The tables on the layer: its errors, and its cost on a CPU and on a GPU."""

from typing import Any


def accuracy(result: dict[str, Any]) -> str:
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for row in result["rows"]:
        errors.setdefault(row["case"], {})[row["layer"]] = row["errors"]
    quantities = list(result["rows"][0]["errors"])
    lines = ["| input | " + " | ".join(f"{quantity}: torch | ours" for quantity in quantities) + " |"]
    lines.append("|---" * (1 + 2 * len(quantities)) + "|")
    for case, of_layer in errors.items():
        values = [of_layer[layer][name] for name in quantities for layer in ("torch", "CustomBatchNorm")]
        cells = [f"{value:.0e}".replace("e-0", "e-").replace("e+00", "").replace("e+0", "e") for value in values]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _layer_tables(result: dict[str, Any]) -> list[str]:
    rows = result["layers"]
    kinds = list(dict.fromkeys((row["compiled"], row["mode"], row["dtype"]) for row in rows))
    kinds.sort(key=lambda kind: (kind[:2], kind[2] != "float32"))
    times = {(row["shape"], (row["compiled"], row["mode"], row["dtype"])): row["layers"] for row in rows}
    heads = [f"{'compiled ' * compiled}{mode} {dtype}" for compiled, mode, dtype in kinds]
    lines = ["| × torch | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for shape in dict.fromkeys(row["shape"] for row in rows):
        ours = [times[shape, kind]["CustomBatchNorm"]["times_torch"] for kind in kinds]
        lines.append(f"| {shape} | " + " | ".join(f"{ratio:.2f}" for ratio in ours) + " |")
    lines += ["", "| | torch | CustomBatchNorm | × torch |", "|---|---|---|---|"]
    for name, layers in result["cases"].items():
        torchs, ours = layers["torch"]["milliseconds"], layers["CustomBatchNorm"]
        lines.append(f"| {name} | {torchs:.2f} ms | {ours['milliseconds']:.2f} ms | {ours['times_torch']:.2f} × |")
    return lines


def batchnorm(result: dict[str, Any]) -> str:
    rows = result["layers"]
    naive = next(row["layers"]["naive"]["times_torch"] for row in rows if "naive" in row["layers"])
    excess = (row["layers"]["CustomBatchNorm"]["memory_in_x"] - row["layers"]["torch"]["memory_in_x"] for row in rows)
    memory = f"Memory during a call is at most {max(excess):.1f} sizes of x above torch's. A naive implementation,"
    return "\n".join(
        [*_layer_tables(result), "", memory, f"in five steps, takes {naive:.1f} × in the first case (train, float32)."]
    )


def batchnorm_cuda(result: dict[str, Any]) -> str:
    where = f"On one {result['device']}, torch {result['machine']['torch']}, eager."
    return "\n".join([*_layer_tables(result), "", where])
