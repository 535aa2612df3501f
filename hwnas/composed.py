"""A network put together of parts that name the values which they read and give."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hwnas.wiring import Value, Wiring


class Composed(nn.Module):
    """A network of parts.

    Args:
        parts: by name, in an order in which each reads what those before it give.
    """

    def __init__(self, parts: Mapping[str, nn.Module], wiring: Wiring) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.wiring = wiring

    def forward(self, x: Tensor) -> Any:
        """Run the parts; see `nn.Module.forward`."""
        return put_into(self.wiring.tree, run_parts(list(self.children()), self.wiring, x))


def put_into(tree: Any, values: Mapping[int, Tensor]) -> Any:
    """Return a tree of outputs with values in their places."""
    return tree_map(lambda leaf: values[leaf.number] if isinstance(leaf, Value) else leaf, tree)


def run_parts(
    modules: Sequence[nn.Module], wiring: Wiring, x: Tensor, wanted: Collection[int] | None = None
) -> dict[int, Tensor]:
    """Return the values of a batch by their numbers.

    Args:
        modules: one a part, in order.
        wanted: the values that are asked for; parts that none of them needs are not run. None runs all.
    """
    needed = None if wanted is None else wiring.needed(wanted)
    values = {0: x}
    for number, (module, reads, gives) in enumerate(zip(modules, wiring.reads, wiring.gives, strict=True)):
        if needed is None or number in needed:
            given = module(*(values[each] for each in reads))
            values.update(zip(gives, given if len(gives) > 1 else (given,), strict=True))
    return values
