"""The glossary: one source for the page and for docs/glossary.md.  python -m demo.glossary > docs/glossary.md"""

from dataclasses import dataclass
from html import escape

from demo.url_state import slug


@dataclass(frozen=True)
class Term:
    """`also`: synonyms and plurals, which the page links as well."""

    name: str
    meaning: str
    also: tuple[str, ...] = ()


TERMS = (
    Term("activation", "The output of a layer for one input: one number per channel and position.", ("activations",)),
    Term(
        "affine parameters γ and β",
        "Two learned numbers per channel: batch norm multiplies the normalised value by γ and adds β.",
        ("γ and β",),
    ),
    Term("batch", "The images that pass through a network together.", ("batches",)),
    Term(
        "batch normalisation",
        "A layer that subtracts each channel’s mean, divides by its standard deviation, then applies γ and β. In train "
        "mode, mean and standard deviation are those of the batch; in eval mode, they come from the running "
        "statistics.",
        ("batch norm", "batch norms"),
    ),
    Term("batch statistics", "Mean and variance of a channel over the images and positions of one batch."),
    Term("calibration", "Agreement of probability and accuracy: of the answers with 90%, nine in ten are right."),
    Term("channel", "One of the feature maps of a layer; batch norm normalises each by itself.", ("channels",)),
    Term(
        "condition number",
        "The largest curvature of a loss divided by the smallest. The larger it is, the more gradient descent zigzags.",
    ),
    Term(
        "dropout",
        "Setting randomly chosen activations to zero in training, so that the network relies on no single one.",
    ),
    Term("early stopping", "Ending training once the validation loss has not improved for some epochs: its patience."),
    Term("epoch", "One pass of training over all its images.", ("epochs",)),
    Term(
        "eval mode",
        "The mode for use after training: batch norm uses the running statistics, and dropout is off. The answer to an "
        "image does not depend on the batch.",
    ),
    Term("fan-in", "The number of inputs from which a layer computes each output."),
    Term("fine-tuning", "Continuing the training of a trained network on other data."),
    Term(
        "folding",
        "Merging a batch norm in eval mode, which is a multiplication and an addition, into the weights of a "
        "neighbouring layer.",
        ("folded",),
    ),
    Term("gradient", "The direction in which the loss grows fastest, one number per weight.", ("gradients",)),
    Term(
        "initialiser", "The rule that draws the weights before training, such as Glorot’s or He’s.", ("initialisers",)
    ),
    Term(
        "learning rate η",
        "The factor by which the gradient is multiplied in each training step.",
        ("learning rate", "learning rates"),
    ),
    Term("logit", "A network’s output for one class before softmax turns all of them into probabilities.", ("logits",)),
    Term("loss", "What training minimises; here −log of the probability given to the right digit, in nats."),
    Term(
        "momentum",
        "In batch norm, the weight of the newest batch in the running statistics, 0.1 in PyTorch. In some libraries, "
        "it is the weight of the old average.",
    ),
    Term("nat", "The unit of natural logarithms. A probability of 50% is a loss of 0.69 nats.", ("nats",)),
    Term("overfitting", "Improving on the training images but not on new ones.", ("overfit",)),
    Term("polarity", "Whether ink is dark on light or light on dark."),
    Term(
        "precise statistics",
        "Mean and variance over a whole set of images at once, instead of a running average over batches.",
    ),
    Term(
        "running statistics",
        "A moving average of the batch means and variances of training, stored in the network for eval mode.",
        ("running mean", "running variance", "running average", "running averages"),
    ),
    Term(
        "saturation",
        "Values at which an activation function is so flat that the gradient almost vanishes.",
        ("saturated",),
    ),
    Term("softmax", "The function that turns logits into probabilities: exponentials divided by their sum."),
    Term(
        "standard deviation σ",
        "The square root of the variance: how far values lie from their mean.",
        ("standard deviation",),
    ),
    Term(
        "train mode",
        "The mode for training: batch norm uses the statistics of the batch, so every image affects the answers to the "
        "others.",
    ),
    Term("validation loss", "The loss on images that are not used for training."),
    Term("weight decay", "Shrinking every weight a little in each training step."),
)


def to_html() -> str:
    """The glossary as a list. `data-words` are the words that the page links to a term."""
    return "".join(
        f'<div id="term-{slug(term.name)}" data-words="{escape("|".join((term.name, *term.also)))}">'
        f"<dt>{escape(term.name)}</dt><dd>{escape(term.meaning)}</dd></div>"
        for term in TERMS
    )


def to_markdown() -> str:
    """docs/glossary.md"""
    lines = [f"**{term.name}**\n: {term.meaning}\n" for term in TERMS]
    return "# Glossary\n\nThe terms that the app uses, as its “Glossary” button shows them.\n\n" + "\n".join(lines)


if __name__ == "__main__":
    print(to_markdown(), end="")
