"""Generate the model card of an exported checkpoint in Hugging Face's format."""

from typing import Any

from bnmodel.deploy.checks import Check

OF_AUGMENTED_DIGITS = """The training digits include crossed sevens and ones with a
foot. Most scribbles and letters get a low probability; a letter that looks like a digit may get a high one."""
OF_PLAIN_DIGITS = """MNIST's writers were American: slashed zeros and ones with a long flag
are recognised less well. A scribble also gets an answer: the probabilities do not say whether it is a digit."""


def model_card(name: str, metadata: dict[str, Any], measured: list[Check]) -> str:
    """README.md of a checkpoint's folder, from its metadata and what was measured."""
    training = metadata["training"]
    recipe, best = training["recipe"], training["best_epoch"]
    rows = "\n".join(
        f"| {check.name} | `{check.file}` | {check.detail} |"
        for check in measured
        if check.name in ("MNIST's test set", "the shipped sample", "golden vectors", "batch invariance")
    )
    refitted = ""
    if "refitted_on" in best:
        digits = f"{best['refitted_on']:,} digits"
        refitted = f"Then trained again from scratch on all {digits}: `python -m bnmodel refit`.\n"
    limits = OF_AUGMENTED_DIGITS if recipe.get("augmented") else OF_PLAIN_DIGITS
    norms = ", ".join(f"`{norm}`" for norm in metadata["batch_norms"]) or "none"
    return f"""---
license: mit
library_name: pytorch
pipeline_tag: image-classification
datasets: [ylecun/mnist]
metrics: [accuracy]
tags: [mnist, batch-normalization, onnx, torchscript]
model-index:
  - name: {name}
    results:
      - task: {{type: image-classification}}
        dataset: {{name: MNIST validation (12,000 of the 60,000), type: ylecun/mnist}}
        metrics: [{{type: accuracy, value: {best["validation_accuracy"]:.4f}}}]
---
# {name}: {metadata["what"]}

Ten classes, the digits 0 … 9. Trained on {training["dataset"]}, as `python -m bnmodel train --recipe {recipe["name"]}`.
Best epoch {best["epoch"]}: validation loss {best["validation_loss"]:.6f}, accuracy {best["validation_accuracy"]:.2%}.
{refitted}
| `.torchscript`, `.onnx`, `.pt2` | input | outputs |
|---|---|---|
| `digits.*` | `images` float32 (N, 1, 28, 28) in [0, 1], ink bright | `log_probs` float32 (N, 10) |
| `sketch.*` | `canvas` uint8 (H, W, 4) RGBA, 8 … 4096 | `probabilities` (10,), `digit` (28, 28), `ink` () |
| `numbers.*` | the same | `count` int32 (), `boxes` (8, 4), `probabilities` (8, 10), in reading order |

- Preprocessing of `digits`: {metadata["preprocessing"]}
- `sketch` and `numbers` contain this preprocessing and take any drawing.
- Batch norms {norms} are folded into their neighbours; their statistics, γ and β are in the metadata of each file.
- Metadata: TorchScript and pt2 extra file `metadata.json`, ONNX metadata property of that name, and `certificate.json`.
- ONNX opset {metadata["versions"]["onnx_opset"]}, one file. Made with PyTorch {metadata["versions"]["torch"]}.

## Certificate
`python -m export verify {name}` repeats every check; `certificate.json` lists all of them. Some of them:

| check | file | measured |
|---|---|---|
{rows}

## Limits
Upright digits: one with `sketch`, up to eight with `numbers`. {limits}

Licence: {metadata["licence"]}.
"""
