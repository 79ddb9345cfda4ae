"""Batch norm folded into its linear neighbours, on the graph that `torch.export` gives.

With running statistics a batch norm is y = s·x + t with s = γ/√(σ² + ε) and t = β − s·μ, per channel. Behind a linear
operator, W·x + b, it becomes (s·W)·x + (s·b + t). In front of one it becomes (W·s)·x + (b + W·t), exact where the
operator does not pad with zeros, which would have to be −t/s. Whether something is a batch norm is told by what the
graph computes, not by the class of a module. Sums are computed in float64.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from bnmodel.deploy import affine as moves
from bnmodel.deploy.affine import Affine, of_rank, shape
from bnmodel.deploy.branches import captured_on_one_path
from bnmodel.deploy.capture import Captured, results_of
from bnmodel.deploy.constants import Constants, new_attribute, store_constants
from bnmodel.deploy.errors import ExportError, as_export_error
from bnmodel.deploy.layers import Layer, layer_of, named_arguments
from bnmodel.deploy.preflight import exportable
from bnmodel.deploy.signature import FlatNetwork, arguments, output_names

aten = torch.ops.aten
VIEWS = {
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_as", "reshape_as",
    "clone", "contiguous", "expand_as", "expand", "alias", "_reshape_copy", "view_copy", "unsqueeze_copy",
    "squeeze_copy",
}  # fmt: skip
SHAPED_AS = ("aten.reshape_as.default", "aten.view_as.default", "aten.expand_as.default")
PERMUTATIONS = {"permute", "transpose", "t", "movedim", "swapaxes", "mT", "numpy_T", "permute_copy", "transpose_copy"}
MAXIMA = re.compile(r"max_pool[123]d|amax")
AVERAGES = re.compile(r"(adaptive_)?avg_pool[123]d|mean|upsample_.*")
REFLECTIONS = re.compile(r"(reflection|replication)_pad[123]d")
STATISTICS = re.compile(r"running_(mean|var)$|(^|\.)(moving|pop\w*)_(mean|var\w*)$")
INVERSE_ROOTS = ("rsqrt", "sqrt", "pow")


@dataclass(frozen=True)
class Folded:
    """A network with its batch norms folded.

    Attributes:
        module: called as the network is; plain tensors in, the network's own containers out.
        folded: names of the batch norms that are gone.
        kept: names of the others, with the reason.
    """

    module: nn.Module
    folded: list[str]
    kept: dict[str, str]


@as_export_error("folding failed")
def fold(module: nn.Module, example: Any, dynamic: Any = None) -> Folded:
    """A copy of `module` in eval mode with every batch norm folded that can be folded exactly.

    Args:
        module: any network that `torch.export` can trace. It is unchanged, and so is its mode.
        example: one tensor; a tuple of positional arguments; or a dict of keyword arguments.
        dynamic: axes of variable size, as in `certify`.

    Raises:
        ExportError: the network cannot be exported; the message names the layer and the remedy.
    """
    network = exportable(module)
    given = arguments(network, example)
    flat = FlatNetwork(network, given)
    with torch.no_grad():
        output = flat.call(*given.tensors)
    names = output_names(output, None, given.names)
    captured = captured_on_one_path(flat, given.tensors, given.names, names, dynamic)
    folded, kept = fold_graph(captured)
    return Folded(_AsCalled(captured.graph, output), folded, kept)


class _AsCalled(nn.Module):
    """A flat graph with the calling convention of the network that it was made from."""

    def __init__(self, graph: fx.GraphModule, output: Any) -> None:
        super().__init__()
        self.graph = graph
        leaves, self._spec = pytree.tree_flatten(output)
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self._rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        leaves = list(self._rest)
        for place, tensor in zip(self._places, self.graph(*tensors), strict=True):
            leaves[place] = tensor
        return pytree.tree_unflatten(leaves, self._spec)


def fold_graph(captured: Captured) -> tuple[list[str], dict[str, str]]:
    """Fold in place; names of the batch norms folded, and of those kept with the reason.

    Raises:
        ExportError: the graph has batch statistics or random numbers, or a folded weight is not finite.
    """
    graph = captured.graph
    refuse_graph(graph.graph)
    folding = _Folding(graph)
    for chain in list(folding.chains()):
        folding.fold(chain)
    folding.keep_others()
    folding.store()
    store_constants(graph)
    graph.graph.lint()
    graph.recompile()
    _drop_unused(graph)
    return folding.folded, folding.kept


def layer_name(node: fx.Node) -> str:
    """Qualified name of the module that a node was traced in; the node's own name outside any."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(list(stack.values())), ("",))[0] if stack else ""
    return str(path).removeprefix("model").removeprefix(".") or node.name


def refuse_graph(graph: fx.Graph) -> None:
    """Raise ExportError where a graph uses statistics of the batch, or random numbers."""
    varying: set[fx.Node] = set()  # depend on the input
    for node in graph.nodes:
        if node.op == "get_attr" and (branch := _branch(graph, node)) is not None:
            refuse_graph(branch)
        if node.op == "placeholder" or not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = str(node.target)
        if "batch_norm" in name and node in varying and _in_training(node):
            raise ExportError(
                f"{layer_name(node)}: batch norm with the statistics of the batch ({name}, training=True); "
                "call eval(), or keep running statistics"
            )
        if torch.Tag.nondeterministic_seeded in node.target.tags and _is_random(node):
            raise ExportError(
                f"{layer_name(node)}: random numbers in eval mode ({name}); pass training=self.training to the "
                "dropout, or pass the noise as an input"
            )


def _branch(graph: fx.Graph, node: fx.Node) -> fx.Graph | None:
    """The graph of a branch of `torch.cond`, which is an attribute of its graph's module."""
    module = graph.owning_module
    found = getattr(module, str(node.target), None) if module is not None else None
    return found.graph if isinstance(found, fx.GraphModule) else None


def _is_random(node: fx.Node) -> bool:
    """Whether an operator that may draw random numbers does: not with training=False or a dropout of 0."""
    given = named_arguments(node)
    switches = [given[name] for name in ("train", "training") if name in given]
    rates = [given[name] for name in ("dropout", "dropout_p", "p") if isinstance(given.get(name), (int, float))]
    return not ((switches and not any(switches)) or (rates and not any(rates)))


def _in_training(node: fx.Node) -> bool:
    if str(node.target) == "aten.batch_norm.default":
        return bool(node.args[5]) or node.args[3] is None
    return "no_training" not in str(node.target)


@dataclass
class _Chain:
    """Consecutive operators of which each scales and shifts; together one batch norm or more."""

    nodes: list[fx.Node]
    source: fx.Node
    total: Affine
    norms: list[str] = field(default_factory=list)

    @property
    def last(self) -> fx.Node:
        return self.nodes[-1]


class _Cannot(Exception):
    """A batch norm cannot be moved; the message is the reason."""


Edit = Callable[[], None]


class _Folding:
    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.constants = Constants(graph)
        self.layers: dict[fx.Node, Layer] = {}
        self.folded: list[str] = []
        self.kept: dict[str, str] = {}

    # ---- what is a batch norm

    def chains(self) -> Iterator[_Chain]:
        """Every chain of scales and shifts that contains a batch norm."""
        seen: set[fx.Node] = set()
        for node in self.graph.graph.nodes:
            step = None if node in seen else self.step(node)
            if step is None:
                continue
            source, total = step
            chain, steps = _Chain([node], source, total), [total]
            while len(chain.last.users) == 1:
                following = next(iter(chain.last.users))
                step = self.step(following)
                if step is None or step[0] is not chain.last:
                    break
                chain.nodes.append(following)
                steps.append(step[1])
            seen.update(chain.nodes)
            norms = self.norm_names(chain)
            while chain.nodes[1:] and _dtype(chain.last) != _dtype(source):  # ends in a cast
                chain.nodes.pop()
                steps.pop()
            chain.total = functools.reduce(Affine.then, steps)
            chain.norms = self.norm_names(chain)
            if chain.norms and _dtype(chain.last) == _dtype(source):
                yield chain
            elif norms:
                self.keep(norms, f"it takes {_type_name(source)} and gives {_type_name(chain.last)}")

    def step(self, node: fx.Node) -> tuple[fx.Node, Affine] | None:
        """The input of a node and what it does to it, if that is a scale and a shift by constants."""
        if node.op != "call_function" or not str(node.target).startswith("aten.") or not _is_float(node):
            return None
        kind = str(node.target).split(".")[1]
        if kind == "batch_norm":
            return self._batch_norm(node)
        if kind in ("to", "_to_copy") and isinstance(node.args[0], fx.Node) and _is_float(node.args[0]):
            one = torch.ones([1] * len(shape(node)), dtype=torch.float64)
            return node.args[0], Affine(one, torch.zeros_like(one))
        if kind in ("add", "sub", "rsub", "mul", "div", "addcmul", "neg"):
            return self._arithmetic(node, kind)
        return None

    def _batch_norm(self, node: fx.Node) -> tuple[fx.Node, Affine] | None:
        source, weight, bias, mean, var, _, _, eps, *_ = node.args
        given = {name: value for name, value in (("γ", weight), ("β", bias)) if value is not None}
        values = {name: self.constants.get(value) for name, value in {**given, "μ": mean, "σ²": var}.items()}
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) < len(values) or not isinstance(source, fx.Node):
            return None
        assert isinstance(eps, float)
        if bool((known["σ²"] + eps <= 0).any()):
            raise ExportError(f"{layer_name(node)}: variance of {float(known['σ²'].min()):.3g}, expected at least 0")
        scale = (known["σ²"] + eps).rsqrt() * known.get("γ", 1.0)
        shift = known.get("β", 0.0) - scale * known["μ"]
        per_channel = [1, -1] + [1] * (len(shape(node)) - 2)
        return source, Affine(scale.view(per_channel), shift.view(per_channel))

    def _arithmetic(self, node: fx.Node, kind: str) -> tuple[fx.Node, Affine] | None:
        operands = [self._operand(value) for value in node.args]
        variable = [place for place, value in enumerate(operands) if value is None]
        if len(variable) != 1 or (node.kwargs and set(node.kwargs) - {"alpha", "value"}):
            return None
        place = variable[0]
        source = node.args[place]
        if not isinstance(source, fx.Node) or not _is_float(source) or not _same_shape(source, node):
            return None
        alpha = node.kwargs.get("alpha", node.kwargs.get("value", 1))
        if not isinstance(alpha, (int, float)):
            return None
        parts = _scale_and_shift(kind, place, operands, float(alpha))
        if parts is None:
            return None
        rank = len(shape(node))
        scale, shift = (of_rank(torch.as_tensor(part, dtype=torch.float64), rank) for part in parts)
        if scale is None or shift is None:
            return None
        return source, Affine(scale, shift)

    def _operand(self, value: Any) -> Tensor | None:
        """A constant operand; None for the one that depends on the input."""
        if isinstance(value, (bool, int, float)):
            return torch.tensor(float(value), dtype=torch.float64)
        found = self.constants.get(value) if isinstance(value, fx.Node) else None
        return None if found is None or found.is_complex() else found.double()

    def norm_names(self, chain: _Chain) -> list[str]:
        """Layers in a chain that normalise: with running statistics, or by the inverse of a root."""
        names = []
        for node in chain.nodes:
            operators: set[str] = {str(node.target)}
            sources: set[str] = set()
            for one in node.all_input_nodes:
                operators |= {name.split(".")[1] for name in self.constants.operators(one) if "." in name}
                sources |= self.constants.sources(one)
            normalises = any(op in INVERSE_ROOTS for op in operators) or any(map(STATISTICS.search, sources))
            if normalises or str(node.target) == "aten.batch_norm.default":
                names.append(layer_name(node))
        return list(dict.fromkeys(names))

    # ---- where it goes

    def fold(self, chain: _Chain) -> None:
        names = self.unused_names(chain.norms)
        step = self.step(chain.nodes[0])
        assert step is not None
        chain.source = step[0]  # which may have been folded itself
        reasons = []
        for direction in (self.before, self.after):
            try:
                edits = direction(chain)
            except _Cannot as reason:
                reasons.append(str(reason))
                continue
            for edit in edits:
                edit()
            chain.last.replace_all_uses_with(chain.source)
            for node in reversed(chain.nodes):
                self.graph.graph.erase_node(node)
            self.folded += names
            return
        self.kept.update(dict.fromkeys(names, "; ".join(dict.fromkeys(reasons))))

    def keep(self, names: list[str], reason: str) -> None:
        self.kept.update(dict.fromkeys(self.unused_names(names), reason))

    def keep_others(self) -> None:
        """Batch norms that are no scale and shift by constants."""
        for node in self.graph.graph.nodes:
            branch = _branch(self.graph.graph, node) if node.op == "get_attr" else None
            for inner in branch.nodes if branch is not None else ():
                if "batch_norm" in str(inner.target):
                    self.keep([layer_name(inner)], "it is in a branch that depends on the input")
            if str(node.target) != "aten.batch_norm.default" or self.constants.get(node) is not None:
                continue
            if self.step(node) is None:
                self.keep([layer_name(node)], "its weights or statistics depend on the input")

    def unused_names(self, names: list[str]) -> list[str]:
        """A layer that is called twice is named twice."""
        result = []
        for name in names:
            count, unique = 1, name
            while unique in self.folded or unique in self.kept:
                count += 1
                unique = f"{name} (call {count})"
            result.append(unique)
        return result

    def before(self, chain: _Chain) -> list[Edit]:
        """Fold into what computes the chain's input."""
        _require(len(_readers(chain.source)) == 1, f"the output of {_named(chain.source)} is used elsewhere")
        return self.pull(chain.source, chain.total)

    def after(self, chain: _Chain) -> list[Edit]:
        """Fold into everything that uses the chain's output."""
        return self.push(chain.last, chain.total)

    def pull(self, node: fx.Node, total: Affine) -> list[Edit]:
        """Make `node`, which has one user, compute total(node)."""
        layer = self.layer(node)
        if layer is not None:
            _require(layer.accepts_after(total), f"it does not act on the output channels of {_named(node)}")
            return [lambda: layer.apply_after(total)]
        name = _require_operator(node, "it follows")
        if name in ("cat", "concat"):
            return self._pull_cat(node, total)
        if name == "add" and not node.kwargs:
            parts = [one for one in node.args if isinstance(one, fx.Node)]
            _require(len(set(parts)) == 2 and all(_same_shape(one, node) for one in parts), _reason("it follows", node))
            only_scale = Affine(total.scale, torch.zeros_like(total.scale))
            return self._pull_one(parts[0], total) + self._pull_one(parts[1], only_scale)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return self._pull_one(source, self._moved(node, name, source, total, backwards=True))

    def _pull_one(self, node: fx.Node, total: Affine) -> list[Edit]:
        _require(len(_readers(node)) == 1, f"the output of {_named(node)} is used elsewhere")
        return self.pull(node, total)

    def _pull_cat(self, node: fx.Node, total: Affine) -> list[Edit]:
        parts, axis = _concatenated(node)
        sizes = [shape(part)[axis] for part in parts]
        _require(len(set(parts)) == len(parts) and all(isinstance(size, int) for size in sizes), "it follows a cat")
        scales, shifts = moves.split(total.scale, axis, sizes), moves.split(total.shift, axis, sizes)
        edits: list[Edit] = []
        for part, scale, shift in zip(parts, scales, shifts, strict=True):
            edits += self._pull_one(part, Affine(scale, shift))
        return edits

    def push(self, node: fx.Node, total: Affine) -> list[Edit]:
        """Make every user of `node` expect node instead of total(node)."""
        readers = _readers(node)
        _require(bool(readers), "its output is not used")
        edits: list[Edit] = []
        for user in readers:
            edits += self._push_into(node, user, total)
        return edits

    def _push_into(self, node: fx.Node, user: fx.Node, total: Affine) -> list[Edit]:
        _require(user.op != "output", "its output is an output of the network")
        layer = self.layer(user)
        if layer is not None and layer.source is node:
            _require(layer.accepts_before(total), _reason_before(layer))
            return [lambda: layer.apply_before(total)]
        name = _require_operator(user, "it is followed by")
        if name in ("cat", "concat"):
            return self._push_cat(node, user, total)
        _require(user.all_input_nodes[:1] == [node] and user.args[0] is node, _reason("it is followed by", user))
        return self.push(user, self._moved(user, name, node, total, backwards=False))

    def _push_cat(self, node: fx.Node, user: fx.Node, total: Affine) -> list[Edit]:
        parts, axis = _concatenated(user)
        sizes = [shape(part)[axis] for part in parts]
        _require(parts.count(node) == 1 and all(isinstance(size, int) for size in sizes), "it is followed by a cat")

        def joined(part: Tensor, neutral: float) -> Tensor:
            pieces = []
            for one, size in zip(parts, sizes, strict=True):
                other = list(part.shape)
                other[axis] = size
                pieces.append(part.expand(other) if one is node else part.new_full(other, neutral))
            return torch.cat(pieces, axis)

        return self.push(user, Affine(joined(total.scale, 1.0), joined(total.shift, 0.0)))

    def _moved(self, node: fx.Node, name: str, source: fx.Node, total: Affine, backwards: bool) -> Affine:
        """The scale and shift on the other side of an operator that only rearranges, averages or maximises."""
        how = "it follows" if backwards else "it is followed by"
        inside, outside = shape(source), shape(node)
        start, end = (outside, inside) if backwards else (inside, outside)
        moved: Affine | None = None
        if name in VIEWS and _same_elements(source, node):
            moved = total.map(lambda part: moves.reshaped(part, start, end))
        elif name in PERMUTATIONS:
            order = _order(node, name, len(inside))
            moved = total.map(lambda part: moves.permuted(part, moves.inverse(order) if backwards else order))
        elif name == "channel_shuffle":
            moved = total.map(lambda part: _shuffled(part, int(node.args[1]), backwards))  # type: ignore[arg-type]
        elif name == "pixel_shuffle" and backwards:
            moved = total.map(lambda part: _unshuffled(part, int(node.args[1])))  # type: ignore[arg-type]
        elif (axes := _reduced(node, name, total)) is not None:
            constant = [other for other in range(len(inside)) if other in axes]
            keeps = len(inside) == len(outside)
            moved = total.map(lambda part: _without(part, constant, keeps, backwards, len(inside)))
        _require(moved is not None, _reason(how, node))
        assert moved is not None
        return moved

    def layer(self, node: fx.Node) -> Layer | None:
        if node not in self.layers:
            found = layer_of(node, self.constants)
            if found is None:
                return None
            self.layers[node] = found
        return self.layers[node]

    def store(self) -> None:
        """Write the folded weights into the graph; a weight that is used elsewhere gets a copy of its own."""
        for count, (node, layer) in enumerate(self.layers.items()):
            if layer.changed:
                self._store(node, layer, f"folded_{count}")

    def _store(self, node: fx.Node, layer: Layer, name: str) -> None:
        dtype = _dtype(node)
        weight, bias = layer.weight.to(dtype), layer.bias.to(dtype)
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise ExportError(
                f"{layer_name(node)}: weights that are not finite after folding its batch norm; the variance is "
                "extreme: recalibrate the statistics"
            )
        graph, source = self.graph.graph, layer.source
        attributes = []
        for suffix, value in (("weight", weight), ("bias", bias)):
            self.graph.register_buffer(f"{name}_{suffix}", value.contiguous())
            with graph.inserting_before(node):
                attributes.append(graph.get_attr(f"{name}_{suffix}"))
        if layer.spatial:
            node.args = (source, *attributes, *node.args[3:])
            node.kwargs = {key: value for key, value in node.kwargs.items() if key not in ("input", "weight", "bias")}
        else:
            node.target = aten.linear.default
            node.args, node.kwargs = (source, *attributes), {}


def _scale_and_shift(kind: str, place: int, operands: list[Tensor | None], alpha: float) -> tuple[Any, Any] | None:
    """Of operator `kind` with the variable operand at `place`."""
    other = [value for value in operands if value is not None]
    if kind == "neg":
        return -1.0, 0.0
    if kind == "addcmul" and len(operands) == 3 and place > 0:
        assert operands[0] is not None
        factor = operands[3 - place]
        return (factor * alpha if factor is not None else None), operands[0]
    if len(operands) != 2 or len(other) != 1:
        return None
    constant = other[0]
    if kind == "add":
        return (1.0, constant * alpha) if place == 0 else (alpha, constant)
    if kind == "sub":
        return (1.0, -constant * alpha) if place == 0 else (-alpha, constant)
    if kind == "rsub":
        return (-alpha, constant) if place == 0 else (1.0, -constant * alpha)
    if kind == "mul":
        return constant, 0.0
    if kind == "div" and place == 0:
        return constant.reciprocal(), 0.0
    return None


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise _Cannot(reason)


def _require_operator(node: fx.Node, how: str) -> str:
    named = node.op == "call_function" and str(node.target).startswith("aten.")
    _require(named and bool(node.args) and isinstance(node.meta.get("val"), Tensor), _reason(how, node))
    return str(node.target).split(".")[1]


def _reason(how: str, node: fx.Node) -> str:
    return f"{how} {_named(node)}"


def _reason_before(layer: Layer) -> str:
    if layer.padded:
        return f"{_named(layer.node)} pads with zeros"
    return f"it does not act on the input channels of {_named(layer.node)}"


def _named(node: fx.Node) -> str:
    if node.op != "call_function":
        return f"the input {node.name}" if node.op == "placeholder" else node.op
    kind = str(node.target).split(".")
    name = layer_name(node)
    operator_name = kind[1] if len(kind) > 1 else getattr(node.target, "__name__", str(node.target))
    return operator_name if name == node.name else f"{operator_name} ({name})"


def _readers(node: fx.Node) -> list[fx.Node]:
    """The users of a node that read its values, and not only its shape."""
    return [user for user in node.users if not _reads_shape_only(user, node)]


def _reads_shape_only(user: fx.Node, node: fx.Node) -> bool:
    kind = str(user.target)
    if kind == "aten.sym_size.int":
        return True
    return kind in SHAPED_AS and user.args[0] is not node


def _concatenated(node: fx.Node) -> tuple[list[fx.Node], int]:
    parts = list(node.args[0])  # type: ignore[arg-type]
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    assert isinstance(axis, int)
    return parts, axis % len(shape(node))


def _order(node: fx.Node, name: str, rank: int) -> list[int]:
    """Axes of the input in the order of the output."""
    order = list(range(rank))
    if name in ("permute", "permute_copy"):
        axes: Any = node.args[1]
        return [axis % rank for axis in axes]
    if name == "movedim":
        return _moved_order(rank, node.args[1:])
    if name == "numpy_T":
        return order[::-1]
    swapped: Any = (-2, -1) if name in ("t", "mT") else node.args[1:3]
    if rank < 2:
        return order
    a, b = swapped[0] % rank, swapped[1] % rank
    order[a], order[b] = order[b], order[a]
    return order


def _moved_order(rank: int, arguments: Any) -> list[int]:
    marker = torch.empty(tuple(range(2, rank + 2)), device="meta").movedim(*arguments)
    return [size - 2 for size in marker.shape]


def _reduced(node: fx.Node, name: str, total: Affine) -> set[int] | None:
    """Axes over which an operator averages, maximises or reflects; None where it does something else."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    rank = len(shape(source))
    if MAXIMA.fullmatch(name):
        if not total.increases():
            return None
        return set(_axes(node, rank)) if name == "amax" else set(range(rank - int(name[-2]), rank))
    if REFLECTIONS.fullmatch(name):
        return set(range(rank - int(name[-2]), rank))
    if name in ("pad", "constant_pad_nd"):
        mode = node.args[2] if name == "pad" and len(node.args) > 2 else node.kwargs.get("mode", "constant")
        if mode == "constant":
            value = node.args[3] if name == "pad" and len(node.args) > 3 else None
            value = node.args[2] if name == "constant_pad_nd" and len(node.args) > 2 else value
            if value or not total.only_scales():
                return None
        return set(range(rank - len(node.args[1]) // 2, rank))  # type: ignore[arg-type]
    if not AVERAGES.fullmatch(name):
        return None
    if name == "mean":
        return set(_axes(node, rank)) if len(node.args) > 1 and node.args[1] is not None else None
    if name.startswith("avg_pool") and not _weights_sum_to_one(node):
        return None
    spatial = rank - 2 if name.startswith("upsample") else int(name[-2])
    return set(range(rank - spatial, rank))


def _axes(node: fx.Node, rank: int) -> list[int]:
    axes: Any = node.args[1]
    return [axis % rank for axis in (axes if isinstance(axes, (list, tuple)) else [axes])]


def _weights_sum_to_one(node: fx.Node) -> bool:
    """Of an average pool: it pads nothing, or does not count what it pads."""
    named = dict(zip(("input", "kernel", "stride", "padding", "ceil", "counts", "divisor"), node.args, strict=False))
    named |= {"divisor": node.kwargs.get("divisor_override", named.get("divisor"))}
    padded = named.get("padding", 0)
    pads = any(padded) if isinstance(padded, (list, tuple)) else bool(padded)
    return named["divisor"] is None and (not pads or named.get("counts") is False)


def _without(part: Tensor, axes: list[int], keeps: bool, backwards: bool, rank: int) -> Tensor | None:
    """A scale on the other side of a reduction over `axes`, along which it must not vary."""
    if keeps:
        return part if moves.constant_along(part, axes) else None
    if backwards:
        for axis in sorted(axes):
            part = part.unsqueeze(axis)
        return part if part.dim() == rank else None
    return part.squeeze(axes) if moves.constant_along(part, axes) else None


def _shuffled(part: Tensor, group: int, backwards: bool) -> Tensor | None:
    """channel_shuffle: (groups, c) → (c, groups) along axis 1."""
    if part.shape[1] == 1:
        return part
    sizes = (-1, group) if backwards else (group, -1)
    groups: Tensor = part.unflatten(1, sizes)
    return groups.transpose(1, 2).flatten(1, 2)


def _unshuffled(part: Tensor, factor: int) -> Tensor | None:
    axis = part.dim() - 3
    if not moves.constant_along(part, [axis + 1, axis + 2]):
        return None
    return part if part.shape[axis] == 1 else part.repeat_interleave(factor * factor, axis)


def _dtype(node: fx.Node) -> torch.dtype:
    dtype = node.meta["val"].dtype
    assert isinstance(dtype, torch.dtype)
    return dtype


def _type_name(node: fx.Node) -> str:
    return str(_dtype(node)).removeprefix("torch.")


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype.is_floating_point


def _same_shape(a: fx.Node, b: fx.Node) -> bool:
    one, other = shape(a), shape(b)
    return len(one) == len(other) and all(moves.same(x, y) for x, y in zip(one, other, strict=True))


def _same_elements(a: fx.Node, b: fx.Node) -> bool:
    one, other = a.meta["val"].numel(), b.meta["val"].numel()
    return moves.same(one, other)


def _drop_unused(graph: fx.GraphModule) -> None:
    """Only what the graph reads stays in its state."""
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph.named_buffers()] + [name for name, _ in graph.named_parameters()]:
        if name not in used:
            parent, _, leaf = name.rpartition(".")
            delattr(operator.attrgetter(parent)(graph) if parent else graph, leaf)


__all__ = ["Folded", "fold", "fold_graph", "new_attribute", "results_of"]
