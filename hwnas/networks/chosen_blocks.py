"""Which blocks of a network are to be replaced: those that a user names, or those that it has by default."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import fx, nn

from hwnas.composed import Composed
from hwnas.errors import InputError
from hwnas.networks.architecture import Places
from hwnas.networks.cut_points import named_stages
from hwnas.networks.graph.blocks import default_blocks
from hwnas.networks.graph.names import Names
from hwnas.networks.graph.regions import Flow
from hwnas.spelling import nearest

ELSEWHERE = "begin or end behind the operation where the two join; hwnas partition lists what can be replaced"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """What a user says of the blocks; nothing leaves it to the network.

    Attributes:
        cuts: modules, in order; a block lies between what each two of them give.
        regions: `MODULE` or `FIRST:LAST`, a block each: from what goes into FIRST to what comes out of LAST,
            in as many places as these are called.
        only: of the blocks that a network has by default, those inside of this module.
        layers: by default each residual or bottleneck layer is a block, not each stage.
    """

    cuts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    only: str = ""
    layers: bool = False


BY_DEFAULT = Blocks()


def chosen_places(
    model: nn.Module, flow: Flow, input_shape: Sequence[int], blocks: Blocks | Sequence[Places]
) -> tuple[Places, ...]:
    """Return the places of each block, by the names of the values between which it stands.

    Args:
        flow: of the model, every layer of which is seen.

    Raises:
        InputError: an unknown name, or a block that something else enters or leaves.
    """
    chooser = _Chooser(model, flow)
    if not isinstance(blocks, Blocks):
        return chooser.known(blocks)
    if sum(map(bool, (blocks.cuts, blocks.regions, blocks.only))) > 1:
        raise InputError("--cut, --region and --only each say which blocks there are", "give one of them")
    if blocks.layers and (blocks.cuts or blocks.regions):
        raise InputError("--layers finds blocks, and --cut and --region name them", "give one of them")
    if blocks.cuts:
        return chooser.between(blocks.cuts)
    if blocks.regions:
        return tuple(map(chooser.region, blocks.regions))
    return chooser.by_default(input_shape, blocks.only, blocks.layers)


class _Chooser:
    def __init__(self, model: nn.Module, flow: Flow) -> None:
        self.model, self.flow = model, flow
        self.names = Names(flow.traced)

    def known(self, regions: Sequence[Places]) -> tuple[Places, ...]:
        for name in (name for places in regions for ends in places for name in ends):
            if name not in self.names.nodes:
                raise InputError(
                    f"{type(self.model).__name__} computes nothing that is called {name!r}",
                    "restore the code of the network as it was",
                )
        for entry, exit in (ends for places in regions for ends in places):
            self.place(self.names.nodes[entry], self.names.nodes[exit])
        return tuple(regions)

    def between(self, cuts: Sequence[str]) -> tuple[Places, ...]:
        if len(cuts) < 2:
            raise InputError(
                f"{len(cuts)} cut given; stem, blocks and head need at least two",
                "name the last module of the stem and the last one of each block: --cut NAME,NAME",
            )
        values = [self.behind(name) for name in cuts]
        for (first, entry), (second, exit) in itertools.pairwise(zip(cuts, values, strict=True)):
            if self.flow.order[exit] <= self.flow.order[entry]:
                raise InputError(
                    f"the cut behind {second!r} does not come after the one behind {first!r}",
                    "name each cut once, in the order of execution",
                )
        called = [
            name if self.names.nodes.get(name) is value else self.names.of[value]
            for name, value in zip(cuts, values, strict=True)
        ]
        for entry, exit in itertools.pairwise(values):
            self.place(entry, exit)
        return tuple((ends,) for ends in itertools.pairwise(called))

    def region(self, text: str) -> Places:
        first, colon, last = text.partition(":")
        calls = [self.calls(name) for name in ((first, last) if colon else (first, first))]
        if len(calls[0]) != len(calls[1]):
            raise InputError(
                f"{first} is called {len(calls[0])} times and {last} {len(calls[1])} times",
                "name two modules that are called equally often",
            )
        places = []
        for (entry, _), (_, exit) in zip(*calls, strict=True):
            if entry is None or exit is None:
                name, verb = (first, "takes") if entry is None else (last or first, "gives")
                raise InputError(
                    f"{name} {verb} something else than one tensor",
                    "name the modules inside of it that take one and give one: FIRST:LAST",
                )
            places.append(self.place(entry, exit))
        return tuple(places)

    def by_default(self, input_shape: Sequence[int], only: str, layers: bool) -> tuple[Places, ...]:
        if only:
            self.calls(only)
        with suppress(InputError):
            if isinstance(self.model, Composed) and not only and not layers:
                parts = dict(self.model.named_children())
                return tuple(self.region(name) for name in parts if name.startswith("block"))
            stages = named_stages(self.model, input_shape)
            if len(stages) > 1 and not only and not layers and self.is_passed(stages):
                return self.between(stages)
        names = self.names.of
        found = [
            tuple((names[place.entry], names[place.exit]) for place in places)
            for places in default_blocks(self.flow, layers)
        ]
        kept = [places for places in found if all(_is_inside(exit, only) for _, exit in places)]
        if not kept:
            raise InputError(
                f"nothing of {only or type(self.model).__name__} can be replaced: between its first layer "
                "and those that answer, one tensor nowhere enters what one tensor leaves",
                "look at what hwnas partition lists, and name a block by yourself: --region FIRST:LAST",
            )
        return tuple(kept)

    def is_passed(self, stages: Sequence[str]) -> bool:
        """Whether everything that the network gives is one tensor, and computed of what each stage gives."""
        image, answers = self.flow.values[0], self.flow.output.all_input_nodes
        chains = self.flow.chains.get(None, ())
        passed = {node for chain in chains if chain[0] is image and answers == chain[-1:] for node in chain}
        return all(self.behind(name) in passed for name in stages)

    def calls(self, module: str) -> list[tuple[fx.Node | None, fx.Node | None]]:
        modules = dict(list(self.model.named_modules())[1:])
        if module not in modules:
            near = nearest(module, modules) or list(dict(self.model.named_children()))[:8]
            hint = f"choose another; near: {', '.join(near)}"
            raise InputError(
                f"the model has no module {module!r}",
                hint if near else "build the network of modules: it has none",
            )
        calls = self.flow.traced.ends.get(module)
        if not calls:
            raise InputError(f"module {module!r} takes no part in the forward pass", "name another module")
        return calls

    def behind(self, module: str) -> fx.Node:
        value = self.calls(module)[-1][1]
        if value is None:
            raise InputError(
                f"behind {module!r} passes something else than one tensor", "cut behind another module"
            )
        if value not in self.flow.value_set:
            raise InputError(f"nothing needs what module {module!r} gives", "cut behind another module")
        return value

    def place(self, entry: fx.Node, exit: fx.Node) -> tuple[str, str]:
        """The names of two values, where nothing else enters and leaves what lies between them."""
        what = f"what lies between {self.of(entry)} and {self.of(exit)}"
        if entry is self.flow.values[0]:
            raise InputError(f"{what} holds the first layer, which stays as it is", "begin behind it")
        if exit.users.keys() == {self.flow.output}:
            raise InputError(f"{what} holds the layer that answers, which stays as it is", "end before it")
        for node in (entry, exit):
            if not self.flow.is_map(node):
                raise InputError(f"{self.of(node)} is not one tensor with an axis of images first", ELSEWHERE)
        region = self.flow.between(entry, exit)
        if exit not in region.inside:
            raise InputError(f"{self.of(exit)} is not computed of {self.of(entry)}", ELSEWHERE)
        added = self.flow.entering(region)
        if added is not None:
            raise InputError(f"{what} also takes {self.of(added)}", ELSEWHERE)
        crossing = self.flow.leaving(region)
        if crossing is not None:
            node, user = crossing
            used = "the output" if user.op == "output" else self.names.of.get(user, user.name)
            other = f"{self.of(node)} also goes to {used}"
            if user not in self.flow.value_set and user.op != "output":
                other = f"the size of {self.of(node)} is also read"
            raise InputError(f"{what} gives more than that: {other}", ELSEWHERE)
        return self.names.of[entry], self.names.of[exit]

    def of(self, node: fx.Node) -> str:
        """What a value is called for people."""
        name = self.names.of.get(node, node.name)
        return f"the output of {name}" if name else "the image"


def _is_inside(value: str, module: str) -> bool:
    return not module or value == module or value.startswith((f"{module}.", f"{module}/"))
