"""Attributes of ONNX nodes, each checked before it is used: a file may say anything."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from hwnas.devices.simulator.onnx.operators import full_name
from hwnas.errors import InputError

# Kernels, strides, dilations and pads beyond this are no network's; products of them would overflow.
LARGEST = 1 << 24

OTHERWISE = "replace the operator, or measure the network on another device, such as --device cpu"
SMALLER = "give a smaller network"


def label(node: onnx.NodeProto) -> str:
    """A node as messages name it: its operator, and its name or its first output."""
    return f"operator {full_name(node)} ({node.name or next(iter(node.output), 'without a name')})"


def no_form(node: onnx.NodeProto, what: str) -> InputError:
    """What a node says that no such operator can mean."""
    return InputError(
        f"{label(node)} {what}", "check the model with onnx.checker.check_model(path, full_check=True)"
    )


def not_taken(node: onnx.NodeProto, what: str, fix: str = OTHERWISE) -> InputError:
    """What a node means by the rules of ONNX, and the simulator does not know."""
    return InputError(f"{label(node)} {what}", fix)


def integers(
    node: onnx.NodeProto,
    name: str,
    default: Sequence[int],
    *,
    length: int | None = None,
    low: int = -LARGEST,
    high: int = LARGEST,
) -> list[int]:
    """Integers of an attribute; a single one counts as a list of one.

    Args:
        default: what the operator means where the attribute is not there.
        length: how many there must be; None takes any number.
        low, high: the least and the largest value allowed.

    Raises:
        InputError: it has another kind, length or range.
    """
    given = next((a for a in node.attribute if a.name == name), None)
    if given is None:
        return list(default)
    if given.type not in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS):
        raise no_form(node, f"has {name} that is no integer")
    values = [given.i] if given.type == onnx.AttributeProto.INT else list(given.ints)
    if length is not None and len(values) != length:
        raise no_form(node, f"has {len(values)} numbers in {name} where {length} are due")
    wrong = next((v for v in values if not low <= v <= high), None)
    if wrong is not None:
        raise no_form(node, f"has {name} = {wrong}, which is not within {low:,} to {high:,}")
    return values


def integer(
    node: onnx.NodeProto, name: str, default: int, *, low: int = -LARGEST, high: int = LARGEST
) -> int:
    """One integer of an attribute; arguments and errors as for integers."""
    if any(a.name == name and a.type != onnx.AttributeProto.INT for a in node.attribute):
        raise no_form(node, f"has {name} that is no integer")
    return integers(node, name, [default], length=1, low=low, high=high)[0]


def flag(node: onnx.NodeProto, name: str, default: bool = False) -> bool:
    """Whether an attribute that is 0 or 1 is set. Raises InputError where it is neither."""
    return bool(integer(node, name, int(default), low=0, high=1))


def text(node: onnx.NodeProto, name: str, default: str, allowed: Sequence[str] = ()) -> str:
    """Text of an attribute.

    Args:
        allowed: the words that the operator knows; () takes any.

    Raises:
        InputError: it is no text, or a word that the operator does not know.
    """
    given = next((a for a in node.attribute if a.name == name), None)
    if given is None:
        return default
    try:
        value = str(given.s.decode())
    except UnicodeDecodeError:
        raise no_form(node, f"has {name} that is no text") from None
    if given.type != onnx.AttributeProto.STRING or (allowed and value not in allowed):
        raise no_form(node, f"has {name} = {value!r}; it knows {', '.join(allowed) or 'any text'}")
    return value
