"""Where a network can be cut, why not elsewhere, and where it is cut by default."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from hwnas.errors import InputError, first_line
from hwnas.network import random_input
from hwnas.networks.graph.regions import Flow, Region
from hwnas.networks.graph.tracing import label, trace
from hwnas.networks.tensors import main_output

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


def run_once(model: nn.Module, input_shape: Sequence[int]) -> tuple[object, Tensor]:
    """The output of a model for a random batch of three, and the batch.

    Returns:
        A tensor, or a tuple, list or dictionary with some inside.

    Raises:
        InputError: it is compiled, cannot take such images, or gives something else.
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
            output = main_output(model(x.clone()))
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot take images of shape {tuple(input_shape)}: {first_line(error)}",
            input_fix(model, input_shape),
        ) from None
    leaves = tree_leaves(output)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    odd = next((leaf for leaf in leaves if not isinstance(leaf, Tensor | int | float | str | None)), None)
    if odd is not None or not tensors:
        raise InputError(
            f"{type(model).__name__} gives a {type(output if odd is None else odd).__name__}, no tensors",
            "let its forward() return tensors, or a tuple, list or dictionary of tensors",
        )
    if not all(tensor.isfinite().all() for tensor in tensors):
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


def named_stages(model: nn.Module, input_shape: Sequence[int]) -> tuple[str, ...]:
    """The modules behind which a model ends its stages, where it names them as is usual; else nothing.

    Stages are the children of `blocks`, `stages` or `features`, the modules `layer1` … or `s1` …, or the
    children of a model that is itself a sequence. For a network of EfficientNet's form (a stem convolution
    and seven stages) stage 0 belongs to the stem and the last two are one block. More than eight stages are
    joined where the map keeps its size; where it always does, into four blocks of equal length.

    Args:
        model: in eval mode, and taking images of `input_shape` (C, H, W).
    """
    children = dict(model.named_children())
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


def fine_flow(model: nn.Module, input_shape: Sequence[int]) -> Flow:
    """Trace a network with every layer of it seen.

    Args:
        model: in eval mode, and taking images of `input_shape` (C, H, W).
    """
    return Flow(trace(model, random_input((IMAGES, *input_shape))))


def cut_points(
    model: nn.Module, input_shape: Sequence[int], flow: Flow | None = None
) -> tuple[list[CutPoint], list[Obstacle]]:
    """Every module behind which a network can be cut, in the order of execution, and what is in the way.

    A place has the names of all modules that end there, the innermost first; modules that compute nothing
    are not named.

    Args:
        model: in eval mode, and taking images of `input_shape` (C, H, W).
        flow: what `fine_flow` gives, where it is known already.
    """
    flow = flow or fine_flow(model, input_shape)
    ends: dict[fx.Node, list[str]] = defaultdict(list)
    for name, calls in flow.traced.ends.items():
        value = calls[0][1]
        is_identity = isinstance(flow.traced.module.get_submodule(name), nn.Identity)
        if name and len(calls) == 1 and value is not None and not is_identity:
            ends[value].append(name)
    image = flow.values[0]
    chain = next((chain for chain in flow.chains.get(None, ()) if chain[0] is image), [image])
    points = [
        CutPoint(name=name, shape=tuple(flow.traced.examples[value].shape[1:]))
        for value in chain[1:]
        for name in (() if flow.output in value.users else ends[value])
    ]
    obstacles = [_obstacle(flow, flow.links[value], ends) for value in chain[1:]]
    return points, [each for each in obstacles if each is not None]


def _obstacle(flow: Flow, region: Region, ends: Mapping[fx.Node, Sequence[str]]) -> Obstacle | None:
    """Why there is no cut between the two values of a region; None where there is nothing to be cut."""
    modules = flow.traced.modules
    nodes = [node for node in flow.values if node in region.inside]
    stacks = [modules[node] for node in nodes]
    around = [names[0] for names in zip(*stacks, strict=False) if len({*names}) == 1]
    frame = around[-1] if around else ""
    depth, passed = len(around), dict[str, None]()
    for node in nodes:
        inner = (*modules[node], str(node.target)) if node.op == "call_module" else modules[node]
        if len(inner) > depth and not isinstance(flow.traced.module.get_submodule(inner[-1]), nn.Identity):
            passed[inner[depth]] = None
    joined = next((name for name in reversed(ends[region.exit]) if name in passed), None)
    if joined is not None:
        del passed[joined]
    if not passed:
        return None
    given = next(
        (name for name in reversed(ends[region.entry]) if name.startswith(frame)), label(region.entry)
    )
    is_input = region.entry is flow.values[0] if not frame else flow.traced.ends[frame][0][0] is region.entry
    what = "its input" if is_input else f"the output of {_inside(frame, given)}"
    named = [_inside(frame, name) for name in passed]
    listed = ", ".join(named) if len(named) <= NAMED else f"{named[0]}, …, {named[-1]}"
    end = _inside(frame, joined) if joined else label(region.exit)
    return Obstacle(name=frame, reason=f"{what} also goes around {listed}; they join in {end}")


def _inside(frame: str, name: str) -> str:
    """A module's name within another one's."""
    return name.removeprefix(f"{frame}.") if frame else name


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
