"""Where a network can be cut, why not elsewhere, and where it is cut by default."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from hwnas.errors import InputError, first_line, is_out_of_memory
from hwnas.network import random_input

Shape = tuple[int, ...]

CONTAINERS = ("blocks", "stages", "features")
PREFIXES = ("layer", "s")
IMAGES = 3  # by which a network is tried; no usual size of anything else
NAMED = 6  # modules in a reason
MANY = 8  # stages; more of them are joined
EQUAL_BLOCKS = 4  # of a network whose stages all keep the shape, as a transformer's


@dataclass(frozen=True, kw_only=True)
class CutPoint:
    """A module behind which exactly one tensor passes. shape: of that, without the batch dimension."""

    name: str
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why there are no more cuts inside of a module; its name is empty for the network itself."""

    name: str
    reason: str


def run_once(model: nn.Module, input_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The output of a model for a random batch of three, and the batch.

    Raises:
        InputError: it is compiled, cannot take such images, or gives something else than one tensor of
            numbers.
    """
    compiled = [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if compiled:
        raise InputError(
            f"{f'its module {compiled[0]!r}' if compiled[0] else 'the network'} is a ScriptModule, "
            "which cannot be cut",
            "give the nn.Module itself, from before torch.jit.script or torch.jit.trace",
        )
    try:
        x = random_input((IMAGES, *input_shape))
        with torch.no_grad():
            output = model(x.clone())
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot take images of shape {tuple(input_shape)}: {first_line(error)}",
            input_fix(model, input_shape),
        ) from None
    if not isinstance(output, Tensor):
        raise InputError(
            f"{type(model).__name__} gives a {type(output).__name__}, not one tensor",
            "wrap it in a function that returns the logits",
        )
    if not output.isfinite().all():
        raise InputError(
            f"{type(model).__name__} gives NaN or infinite outputs",
            "check its weights: they hold NaN, or are not those of this model",
        )
    return output, x


def input_fix(model: nn.Module, input_shape: Sequence[int]) -> str:
    """What to do about a model that cannot take images of a shape."""
    given = input_shape[0]
    taken = next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), given)
    if taken == given:
        return "choose a model for this input size"
    if taken == 1:
        return "let its forward() make one channel of them first: x = x.mean(1, keepdim=True)"
    return f"let its first convolution take {given} channels instead of {taken}"


def stage_cuts(model: nn.Module, input_shape: Sequence[int]) -> tuple[str, ...]:
    """Where a model is cut by default: behind each of its stages.

    Stages are the children of `blocks`, `stages` or `features`, the modules `layer1` … or `s1` …, or the
    children of a model that is itself a sequence. For a network of EfficientNet's form (a stem convolution
    and seven stages) stage 0 belongs to the stem and the last two are one block. More than eight stages are
    joined where the map keeps its size; where it always does, into four blocks of equal length. A network
    without such names is cut where its map changes its size.

    Args:
        model: in eval mode, and taking images of `input_shape` (C, H, W).

    Raises:
        InputError: no such stages.
    """
    children = dict(model.named_children())
    cuts = _named_stages(model, children, input_shape)
    if len(cuts) >= 2:
        return cuts
    found, obstacles = cut_points(model, input_shape)
    points = distinct(found, ())
    if len(points) < 2:
        where = "behind no module" if not points else f"behind {points[0].name!r} alone"
        raise InputError(
            f"{type(model).__name__} has no stages, and can be cut {where}"
            + "".join(f"; {each.name or 'the network'}: {each.reason}" for each in obstacles[:1]),
            "let its forward() call three modules or more one after the other, without branching on values "
            "and without a skip around them",
        )
    cuts = _by_size([point for point in points if len(point.shape) != 3 or min(point.shape[1:]) > 1])
    if len(cuts) < 2:
        names = ", ".join(each.name for each in points[:NAMED])
        raise InputError(
            f"{type(model).__name__} has no stages that can be found by name or by the size of its map",
            f"say where to cut: --cut NAME,NAME with names of {names}"
            + (", or others that hwnas partition lists" if len(points) > NAMED else ""),
        )
    return cuts


def _named_stages(
    model: nn.Module, children: Mapping[str, nn.Module], input_shape: Sequence[int]
) -> tuple[str, ...]:
    if isinstance(model, nn.Sequential):
        return _joined(model, tuple(children)[:-1], input_shape)
    for container in CONTAINERS:
        stages = children.get(container)
        if isinstance(stages, nn.Sequential) and len(stages) > 1:
            names = [f"{container}.{name}" for name, _ in stages.named_children()]
            if "conv_stem" in children and len(names) == 7:
                return (*names[:5], names[6])
            before = list(children)[: list(children).index(container)]
            return _joined(model, (*before[-1:], *names), input_shape)
    for prefix in PREFIXES:
        names = [name for name in children if name.removeprefix(prefix).isdigit() and name.startswith(prefix)]
        if len(names) > 1:
            before = list(children)[: list(children).index(names[0])]
            return _joined(model, (*before[-1:], *names), input_shape)
    return ()


def cut_points(model: nn.Module, input_shape: Sequence[int]) -> tuple[list[CutPoint], list[Obstacle]]:
    """Every module behind which a network can be cut, in the order of execution, and what is in the way.

    A place has the names of all modules that end there, the innermost first; modules that compute nothing
    are not named.

    Args:
        model: in eval mode, and taking images of `input_shape` (C, H, W).
    """
    shapes = output_shapes(model, input_shape)
    points: list[CutPoint] = []
    obstacles: list[Obstacle] = []
    for found in _explore(model, ""):
        if isinstance(found, Obstacle):
            obstacles.append(found)
        elif found in shapes and not isinstance(model.get_submodule(found), nn.Identity):
            points.append(CutPoint(name=found, shape=shapes[found]))
    if points and points[-1].shape == shapes[""]:  # where the network ends there is nothing to be cut off
        end = points.pop()
        while points and points[-1].name.startswith(f"{end.name}."):
            end = points.pop()
    return points, obstacles


def distinct(points: Sequence[CutPoint], cuts: Sequence[str]) -> list[CutPoint]:
    """One point for each place: the one that a cut names, or the outermost module that ends there."""
    kept: list[CutPoint] = []
    for point in points:
        if kept and kept[-1].name.startswith(f"{point.name}."):
            if kept[-1].name in cuts:
                continue
            kept.pop()
        kept.append(point)
    return kept


@torch.inference_mode()
def output_shapes(model: nn.Module, input_shape: Sequence[int]) -> dict[str, Shape]:
    """What each module that is called once gives, where that is one tensor with a first axis of images.

    "" is the model itself.
    """
    calls: Counter[str] = Counter()
    shapes: dict[str, Shape] = {}

    def hook(name: str, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor) and output.shape[:1] == (IMAGES,):
            shapes[name] = tuple(output.shape[1:])

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: hook(name, output))
        for name, module in model.named_modules()
    ]
    try:
        model(torch.zeros(IMAGES, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return {name: shape for name, shape in shapes.items() if calls[name] == 1}


def defaults_of(module: nn.Module) -> dict[str, Any] | None:
    """What optional arguments of forward() (attention masks) are while it is traced."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} or None


class _Shallow(fx.Tracer):
    """Sees one module's own forward(); what that calls stays one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _explore(module: nn.Module, name: str) -> Iterator[str | Obstacle]:
    """The modules inside of one, each behind what it holds itself, behind which a cut can stand."""
    children = [child for _, child in module.named_children()]
    if not children:
        return
    try:
        graph = follow_changes(module, _Shallow().trace(module, concrete_args=defaults_of(module)))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        yield Obstacle(name=name, reason=f"its forward() cannot be traced: {first_line(error)}")
        return
    alive = alive_nodes(graph, frozenset() if name else batch_sizes(graph))
    nodes = [node for node in graph.nodes if node in alive and node.op not in ("get_attr", "output")]
    calls = Counter(node.target for node in graph.nodes)
    places = [node for node in nodes if _passing(node, nodes, alive) == {node}]
    behind = places[places.index(nodes[0]) :] if nodes[0] in places else []
    for start, end in itertools.pairwise(behind):
        inside = nodes[nodes.index(start) + 1 : nodes.index(end)]
        passed = [str(node.target) for node in inside if node.op == "call_module"]
        real = [target for target in passed if not isinstance(module.get_submodule(target), nn.Identity)]
        if real:
            yield _skip(name, start, real, end)
        if end.op == "call_module" and calls[end.target] == 1:
            target = f"{name}.{end.target}" if name else str(end.target)
            if end.all_input_nodes == [start]:
                yield from _explore(module.get_submodule(str(end.target)), target)
            yield target


def follow_changes(module: nn.Module, graph: fx.Graph) -> fx.Graph:
    """Let whatever reads a tensor after a change in place read the change's result: it is the same tensor.

    A change in place is often a statement whose result nobody takes, and then no arrow of the graph leads to
    it. Changes that are seen through a view alone stay such.

    Args:
        module: whose forward() was traced; it knows the modules that the graph calls.
    """
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        changed = node.args[0] if node.args else None
        if isinstance(changed, fx.Node) and _changes_in_place(module, node):
            for user in list(changed.users):
                if order[user] > order[node]:
                    user.replace_input_with(changed, node)
    return graph


def _changes_in_place(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).startswith("__")
    if node.op != "call_function" or not callable(node.target):
        return False
    name = getattr(node.target, "__name__", "")
    if getattr(node.target, "__module__", "") == operator.add.__module__:
        return name.startswith("i") and name[1:] in vars(operator)  # iadd, imul …
    return node.kwargs.get("inplace") is True or (name.endswith("_") and not name.startswith("_"))


def batch_sizes(graph: fx.Graph) -> frozenset[fx.Node]:
    """The nodes that give the number of images, read off the network's input; every cut passes it along."""
    image = next(iter(graph.nodes))
    shapes = {node for node in image.users if node.target == "size" and len(node.args) == 1}
    shapes |= {node for node in image.users if node.target is getattr and node.args[1] == "shape"}
    found = {node for node in image.users if node.target == "size" and node.args[1:] == (0,)}
    found |= {
        node
        for shape in shapes
        for node in shape.users
        if node.target is operator.getitem and node.args[1] == 0
    }
    return frozenset(found)


def alive_nodes(graph: fx.Graph, known: Collection[fx.Node]) -> set[fx.Node]:
    """The nodes that the output is made of; a check of a shape is none of them.

    Args:
        known: nodes that need not be computed; they are left out, and so is what only they need.
    """
    nodes = list(graph.nodes)
    return needed_by(nodes[-1], nodes[0], known) - set(known)


def needed_by(target: fx.Node, entry: fx.Node, known: Collection[fx.Node]) -> set[fx.Node]:
    """The nodes that compute `target` from `entry` and from what is known, all of them included."""
    needed, stack = {entry}, [target]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            if node not in known:
                stack.extend(node.all_input_nodes)
    return needed


def _passing(node: fx.Node, nodes: Sequence[fx.Node], alive: Collection[fx.Node]) -> set[fx.Node]:
    """The values that are needed behind a node."""
    seen = set(nodes[: nodes.index(node) + 1])
    return {value for value in seen if any(user in alive and user not in seen for user in value.users)}


def _skip(name: str, start: fx.Node, passed: Sequence[str], end: fx.Node) -> Obstacle:
    what = "its input" if start.op == "placeholder" else f"the output of {label(start)}"
    modules = ", ".join(passed) if len(passed) <= NAMED else f"{passed[0]}, …, {passed[-1]}"
    return Obstacle(name=name, reason=f"{what} also goes around {modules}; they join in {label(end)}")


def label(node: fx.Node) -> str:
    """What a node is called for people: a module by its name, a function by that of its result."""
    return str(node.target) if node.op in ("call_module", "call_method") else node.name


def _joined(model: nn.Module, names: Sequence[str], input_shape: Sequence[int]) -> tuple[str, ...]:
    """Those stages that give a map or tokens; of many only where the map changes its size."""
    shapes = output_shapes(model, input_shape)
    points = [
        CutPoint(name=name, shape=shapes[name])
        for name in names
        if name in shapes and len(shapes[name]) in (2, 3)
    ]
    cuts = _by_size(points) if len(points) > MANY + 1 else ()
    return cuts if len(cuts) >= 2 else tuple(point.name for point in points)


def _by_size(points: Sequence[CutPoint]) -> tuple[str, ...]:
    """The last point of each size of the map, of two maps at least; else of blocks of equal length."""
    maps = [point for point in points if len(point.shape) == 3]
    runs = [list(run) for _, run in itertools.groupby(maps, lambda point: point.shape[1:])]
    if len(runs) > 1:
        return tuple(run[-1].name for run in runs)
    same = [list(run) for _, run in itertools.groupby(points, lambda point: point.shape)]
    longest = max(same, key=len, default=[])
    amount = min(EQUAL_BLOCKS, len(longest) - 1)
    if amount < 1:
        return ()
    return tuple(longest[round(i * (len(longest) - 1) / amount)].name for i in range(amount + 1))
