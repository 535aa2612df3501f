"""What the values of a traced network are called: by the module that gives them, or by the operation in it.

`layer2.0` is what that module gives, `relu#2` what it gives when it is called again, `decoder/cat_1` what the
second operation `cat` in the forward() of `decoder` gives, `NAME[0]` an item of what NAME gives. A value has
the same name in every trace of a network, whichever modules are whole there.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable

from torch import Tensor, fx

from hwnas.networks.graph.tracing import Trace, label

IMAGE = ""


class Names:
    """The names of a trace's values.

    Attributes:
        of: the name of each node.
        nodes: the node of each name; a value that several modules end with has several.
    """

    def __init__(self, traced: Trace) -> None:
        self.of: dict[fx.Node, str] = {}
        self.nodes: dict[str, fx.Node] = {}
        operations: Counter[tuple[str, str]] = Counter()
        calls: Counter[str] = Counter()
        ends: dict[fx.Node, dict[str, int]] = {}
        for module, of_module in traced.ends.items():
            for number, (_, exit) in enumerate(of_module):
                if exit is not None:
                    ends.setdefault(exit, {}).setdefault(module, number)
        for node in traced.graph.nodes:
            for name in self._names(traced, node, operations, calls, ends.get(node, {})):
                self.of[node] = name
                self.nodes.setdefault(name, node)
            for module, number in ends.get(node, {}).items():  # what gives its input, such as nn.Identity
                self.nodes.setdefault(_numbered(module, number), node)

    def _names(
        self,
        traced: Trace,
        node: fx.Node,
        operations: Counter[tuple[str, str]],
        calls: Counter[str],
        ends: dict[str, int],
    ) -> Iterable[str]:
        """From the innermost to the outermost."""
        if node.op == "placeholder":
            yield IMAGE
            return
        if node.op not in ("call_module", "call_function", "call_method"):
            return
        around = list(traced.modules.get(node, ()))
        if node.op == "call_module":
            yield _numbered(str(node.target), calls[str(node.target)])
            calls[str(node.target)] += 1
        elif is_item(traced, node):
            yield f"{self.of[node.args[0]]}[{node.args[1]}]"  # type: ignore[index]
            return
        else:
            key = (around[-1] if around else "", label(node))
            count = operations[key]
            operations[key] += 1
            yield f"{key[0]}/{key[1]}" + (f"_{count}" if count else "")
        for module in reversed(around):
            if module not in ends:
                break
            yield _numbered(module, ends[module])


def is_item(traced: Trace, node: fx.Node) -> bool:
    """Whether a node takes a tensor out of several that a module or an operation gave."""
    return node.target is operator.getitem and not isinstance(traced.examples[node.args[0]], Tensor)  # type: ignore[index]


def opened(names: Iterable[str]) -> set[str]:
    """The modules that have to be looked into, so that values of these names are to be seen."""
    found = {""}
    for name in names:
        path, is_inside, _ = re.sub(r"(\[[^\]]*\])+$", "", name).partition("/")
        pieces = path.partition("#")[0].split(".")
        found |= {".".join(pieces[:n]) for n in range(1, len(pieces) + bool(is_inside))}
    return found


def _numbered(module: str, call: int) -> str:
    return f"{module}#{call + 1}" if call else module
