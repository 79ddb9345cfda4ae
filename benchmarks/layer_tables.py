"""The tables on the layer: its errors, and its cost on a CPU and on a GPU."""

from typing import Any

from benchmarks.markdown import table


def accuracy(result: dict[str, Any]) -> str:
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for row in result["rows"]:
        errors.setdefault(row["case"], {})[row["layer"]] = row["errors"]
    quantities = list(result["rows"][0]["errors"])
    rows = []
    for case, of_layer in errors.items():
        values = [of_layer[layer][name] for name in quantities for layer in ("torch", "CustomBatchNorm")]
        cells = [f"{value:.0e}".replace("e-0", "e-").replace("e+00", "").replace("e+0", "e") for value in values]
        rows.append([case, *cells])
    heads = [head for quantity in quantities for head in (f"{quantity}: torch", "ours")]
    return table(["input", *heads], rows)


def _cost(result: dict[str, Any]) -> str:
    """Two tables: the layer alone, × torch, and whole training steps."""
    layers = result["layers"]
    kinds = list(dict.fromkeys((row["compiled"], row["mode"], row["dtype"]) for row in layers))
    kinds.sort(key=lambda kind: (kind[:2], kind[2] != "float32"))
    times = {(row["shape"], (row["compiled"], row["mode"], row["dtype"])): row["layers"] for row in layers}
    alone = (
        [shape, *(f"{times[shape, kind]['CustomBatchNorm']['times_torch']:.2f}" for kind in kinds)]
        for shape in dict.fromkeys(row["shape"] for row in layers)
    )
    steps = []
    for name, case in result["cases"].items():
        milliseconds = [f"{case[layer]['milliseconds']:.2f} ms" for layer in ("torch", "CustomBatchNorm")]
        steps.append([name, *milliseconds, f"{case['CustomBatchNorm']['times_torch']:.2f} ×"])
    heads = [f"{'compiled ' * compiled}{mode} {dtype}" for compiled, mode, dtype in kinds]
    return f"{table(['× torch', *heads], alone)}\n\n{table(('', 'torch', 'CustomBatchNorm', '× torch'), steps)}"


def batchnorm(result: dict[str, Any]) -> str:
    rows = result["layers"]
    naive = next(row["layers"]["naive"]["times_torch"] for row in rows if "naive" in row["layers"])
    excess = (row["layers"]["CustomBatchNorm"]["memory_in_x"] - row["layers"]["torch"]["memory_in_x"] for row in rows)
    return (
        f"{_cost(result)}\n\nA call needs up to {max(excess):.1f} × the size of x more memory than torch's layer. "
        f"A naive implementation\nin five steps takes {naive:.1f} × torch's time in the first case (train, float32)."
    )


def batchnorm_cuda(result: dict[str, Any]) -> str:
    return f"{_cost(result)}\n\nOn one {result['device']}, torch {result['machine']['torch']}, eager."
