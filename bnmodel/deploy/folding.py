"""`fold`: fold batch norms into the linear operators around them, on the graph of `torch.export`.

With running statistics a batch norm is y = s·x + t, per channel (batch_norms.py). After a linear operator W·x + b the
two become (s·W)·x + (s·b + t); before it, (W·s)·x + (b + W·t) (layers.py). There may be operators in between that keep
channels apart (propagation.py). A batch norm is only folded if that is exact.
"""

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from bnmodel.deploy.batch_norms import Chain, chains, part_of, varying_norms
from bnmodel.deploy.branches import captured_on_one_path
from bnmodel.deploy.capture import Captured
from bnmodel.deploy.constants import Constants, store_constants
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.layers import Layers
from bnmodel.deploy.preflight import exportable, isolated
from bnmodel.deploy.propagation import CannotFold, pull, push
from bnmodel.deploy.reference import called
from bnmodel.deploy.signature import FlatNetwork, arguments, key_of, signature_of, with_tensors


@dataclass(frozen=True)
class Folded:
    """A network with its batch norms folded.

    Attributes:
        module: has the arguments of the network's forward, and returns the same containers.
        folded: names of the batch norms that were folded.
        kept: name of each other batch norm → the reason.
    """

    module: nn.Module
    folded: list[str]
    kept: dict[str, str]


@isolated("folding failed")
def fold(module: nn.Module, example: Any, dynamic: Any = None) -> Folded:
    """Copy `module` in eval mode, with every batch norm folded for which that is exact.

    Args:
        module: any network that `torch.export` can trace; neither it nor its mode is changed.
        example: one tensor; a tuple of positional arguments; or a dict of keyword arguments.
        dynamic: axes of variable size, as in `certify`.

    Raises:
        ExportError: the network cannot be exported; the message names the layer and the remedy.
    """
    network = exportable(module)
    given = arguments(network, example)
    flat = FlatNetwork(network, given)
    captured = captured_on_one_path(flat, given, dynamic=dynamic)
    output = called(flat, given.tensors)
    if captured.batched:
        _require_same_numbers(flat, output)
    folded, kept = fold_graph(captured)
    return Folded(_AsCalled(captured.graph, flat, output), folded, kept)


def _require_same_numbers(network: FlatNetwork, output: Any) -> None:
    """ExportError if numbers beside the tensors in `output` depend on the input: the graph returns tensors only."""
    tensors = network.arguments.tensors
    batch = next(tensor.size(0) for tensor in tensors if tensor.dim())
    larger = [
        torch.cat([tensor, torch.zeros_like(tensor[:1])]) if tensor.dim() and tensor.size(0) == batch else tensor
        for tensor in tensors
    ]
    try:
        other = called(network, larger)
    except ExportError:  # an input that the network does not accept
        return
    for before, after in zip(_numbers(output), _numbers(other), strict=False):
        if before != after:
            raise ExportError(
                f"{type(network.model).__name__}: expected outputs that are tensors, received a number that depends on "
                f"the input ({before!r}, {after!r}); return it as a tensor"
            )


def _numbers(output: Any) -> list[Any]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, (bool, int, float))]


class _AsCalled(nn.Module):
    """A flat graph with the calling convention of its network."""

    def __init__(self, graph: fx.GraphModule, network: FlatNetwork, output: Any) -> None:
        super().__init__()
        self.graph = graph
        self._output = with_tensors(output, itertools.repeat(torch.empty(0)))
        self._signature = signature_of(network.model)
        given = network.arguments
        leaves = self._leaves(*given.bind(given.tensors))
        paths = {id(leaf): path for path, leaf in leaves.items()}
        self._inputs = {paths[id(tensor)]: name for tensor, name in zip(given.tensors, given.names, strict=True)}
        self._others = {path: leaf for path, leaf in leaves.items() if path not in self._inputs}
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raises: ValueError if an argument other than a tensor differs from the example's."""
        leaves = self._leaves(args, kwargs)
        tensors = [leaves.pop(path, None) for path in self._inputs]
        if leaves != self._others or not all(isinstance(tensor, Tensor) for tensor in tensors):
            fixed = "".join(f", and {path} = {value!r}" for path, value in self._others.items())
            raise ValueError(f"expected tensors for {', '.join(self._inputs.values())}{fixed}, as in the example")
        return with_tensors(self._output, iter(self.graph(*tensors)))

    def _leaves(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Path, which begins with the name of forward's parameter → the argument or the default."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        leaves, _ = pytree.tree_flatten_with_path(dict(bound.arguments))
        return {".".join(map(key_of, path)): leaf for path, leaf in leaves}


def fold_graph(captured: Captured) -> tuple[list[str], dict[str, str]]:
    """Fold in place; return the names of the batch norms that were folded, and those kept with the reason.

    Raises:
        ExportError: a folded weight is not finite.
    """
    module = captured.graph
    constants = Constants(module)
    layers = Layers(module, constants)
    folded: list[str] = []
    kept: dict[str, str] = {}
    for chain in chains(module.graph, constants):
        for part, reason in _fold_parts(chain, layers, constants):
            names = [_unused(name, [*folded, *kept]) for name in part.norms]
            if reason is None:
                folded += names
            else:
                kept.update(dict.fromkeys(names, reason))
    for name, reason in varying_norms(module.graph, constants):
        kept[_unused(name, [*folded, *kept])] = reason
    layers.store()
    store_constants(module)
    module.graph.lint()
    module.recompile()
    _drop_unused(module)
    return folded, kept


def _fold_parts(chain: Chain, layers: Layers, constants: Constants) -> Iterator[tuple[Chain, str | None]]:
    """Fold a chain, or else its longest beginning or end that can be folded; yield each part, and why it was kept."""
    reason, steps = chain.reason or _fold_chain(chain, layers), chain.steps
    cuts = range(1, len(steps)) if reason is not None and chain.reason is None else ()
    for part, rest in [(steps[:-n], steps[-n:]) for n in cuts] + [(steps[n:], steps[:n]) for n in cuts]:
        found = part_of(part, constants)
        if found is not None and found.reason is None and _fold_chain(found, layers) is None:
            yield found, None
            others = part_of(rest, constants)
            yield from () if others is None else _fold_parts(others, layers, constants)
            return
    yield chain, reason


def _fold_chain(chain: Chain, layers: Layers) -> str | None:
    """Fold into what computes the chain's input, else into all users of its output; return the reasons if neither."""
    reasons = []
    for find, node in ((pull, chain.source), (push, chain.last)):
        try:
            edits = find(layers, node, chain.total)
        except CannotFold as reason:
            reasons.append(str(reason))
            continue
        for edit in edits:
            edit()
        chain.last.replace_all_uses_with(chain.source)
        for step in reversed(chain.steps):
            step.node.graph.erase_node(step.node)
        return None
    return "; ".join(dict.fromkeys(reasons))


def _unused(name: str, used: list[str]) -> str:
    """The name, with the number of the call if a layer is called more than once."""
    unique, count = name, 1
    while unique in used:
        count += 1
        unique = f"{name} (call {count})"
    return unique


def _drop_unused(graph: fx.GraphModule) -> None:
    """Delete parameters and buffers that the graph does not read."""
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph.named_buffers()] + [name for name, _ in graph.named_parameters()]:
        if name not in used:
            parent, _, leaf = name.rpartition(".")
            delattr(operator.attrgetter(parent)(graph) if parent else graph, leaf)
