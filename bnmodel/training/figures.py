"""The loss curves of a run."""

from matplotlib.figure import Figure

from bnmodel import plotting
from bnmodel.training.history import History


@plotting.plot_style()
def loss_curves(history: History, title: str = "") -> Figure:
    """Training and validation loss over epochs, with the best epoch and the end marked."""
    figure, (axes,) = plotting.new_figure()
    numbers = [epoch.epoch for epoch in history.epochs]
    axes.plot(
        numbers, [e.train_loss for e in history.epochs], "--", color=plotting.TRAIN, label="training (train mode)"
    )
    axes.plot(numbers, [e.validation_loss for e in history.epochs], color=plotting.EVAL, label="validation")
    best, last = history.best, history.epochs[-1]
    axes.plot(best.epoch, best.validation_loss, "o", color=plotting.EVAL, markersize=7)
    text = f"best: {best.validation_loss:.4f}, epoch {best.epoch}"
    point = (best.epoch, best.validation_loss)
    axes.annotate(text, point, xytext=(-6, -6), textcoords="offset points", ha="right", va="top", color=plotting.EVAL)
    stopped = {"early": "stopped early", "finished": "finished", "interrupted": "interrupted"}[history.stopped]
    axes.axvline(last.epoch, color=plotting.INK, linestyle=":", label=f"{stopped} after epoch {last.epoch}")
    axes.set(xlabel="epoch", ylabel="loss (nats)", yscale="log", title=title)
    plotting.log_ticks(axes.yaxis, (1, 2, 3, 5))
    axes.margins(y=0.14)  # room for the text below the best epoch
    axes.legend()
    return figure
