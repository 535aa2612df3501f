"""A partition with images of another size than those that it was found with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from torch import nn

from hwnas.agreement import disagreement
from hwnas.composed import put_into, run_parts
from hwnas.errors import InputError, NetworkFormError, first_line
from hwnas.network import export_onnx, in_eval_mode, plain_attention, random_input
from hwnas.networks.architecture import Candidate
from hwnas.networks.blocks.families import build_replacement
from hwnas.networks.blocks.family import FamilySpec
from hwnas.networks.build import build_block, build_part
from hwnas.networks.partition import Partition
from hwnas.networks.tensors import by_image, main_output
from hwnas.onnx_sizes import require_bytes

TRIED = 2  # images by which a size is tried


def at_size(model: nn.Module, parts: Partition, size: Sequence[int]) -> Partition:
    """Return the parts with the shapes that values have for images of another size; the modules are the same.

    Args:
        model: what was taken apart, in eval mode, with the weights that the parts have.
        size: (H, W) of what the network is given.

    Raises:
        InputError: model or parts take no images of that size, or compute something else then.
    """
    shape = (parts.shapes[0][0], *size)
    if shape == parts.shapes[0]:
        return parts
    modules = list(parts.ordered(parts.modules).values())
    try:
        require_bytes(f"images of {_pixels(size)}", 4 * TRIED * shape[0] * shape[1] * shape[2])
        x = random_input((TRIED, *shape))
        with torch.no_grad(), plain_attention():
            expected = main_output(in_eval_mode(model)(x.clone()))
            values = run_parts(modules, parts.wiring, x)
    except NetworkFormError as error:
        raise InputError(error.cause, "give a smaller --measure-size") from None
    except Exception as error:
        _refuse(model, parts, size, first_line(error))
    if disagreement(by_image(expected, TRIED), by_image(put_into(parts.wiring.tree, values), TRIED)):
        _refuse(model, parts, size, "its parts compute something else than the whole then")
    return replace(parts, shapes=tuple(tuple(value.shape[1:]) for _, value in sorted(values.items())))


def require_all_places(parts: Partition, block: int, spec: FamilySpec) -> None:
    """Refuse a candidate that cannot have the same weights in all places of a block.

    Raises:
        InputError: what is built for the shapes of one place is no network for those of another.
    """
    name = parts.names[block]
    module = in_eval_mode(build_block(parts, block, spec))
    shapes = {
        (parts.shapes[a], parts.shapes[b]) for a, b in zip(parts.reads(name), parts.gives(name), strict=True)
    }
    for before, after in shapes:
        with torch.random.fork_rng(devices=[]):
            again = in_eval_mode(build_replacement(spec, before, after))
        if reason := _apart(again, module, [before]):
            raise InputError(f"{spec.name} does for maps of one size only: {reason}", "take another space")


def require_size(candidate: Candidate, trained: Partition, measured: Partition) -> bytes:
    """Return a candidate's graph for the size at which it is measured.

    Args:
        trained, measured: the partition at the sizes at which candidates are trained and measured.

    Raises:
        NetworkFormError: it cannot be exported; or what is built for one size is no network for the other.
    """
    shapes = [(1, *shape) for shape in measured.in_shapes(candidate.part_name)]
    module = build_part(trained, candidate.part, candidate.spec).eval()
    if measured is not trained:
        again = in_eval_mode(build_part(measured, candidate.part, candidate.spec))
        if reason := _apart(again, module, [shape[1:] for shape in shapes]):
            raise NetworkFormError(
                f"{candidate.name} does for images of one size only: {reason}",
                "measure at the size of the training",
            )
    return export_onnx(module, *shapes)


def _apart(wanted: nn.Module, found: nn.Module, shapes: Sequence[Sequence[int]]) -> str:
    """Why a module is not what is built for inputs of these shapes; nothing where it is."""
    inputs = [random_input((TRIED, *shape)) for shape in shapes]
    try:
        wanted.load_state_dict(found.state_dict())
        with torch.no_grad(), plain_attention():
            answers = [by_image(each(*(x.clone() for x in inputs)), TRIED) for each in (wanted, found)]
    except Exception as error:
        return first_line(error)
    return "it computes something else for another" if disagreement(*answers) else ""


def _refuse(model: nn.Module, parts: Partition, size: Sequence[int], reason: str) -> NoReturn:
    raise InputError(
        f"{type(model).__name__}, cut at {_pixels(parts.shapes[0][1:])}, cannot be measured at "
        f"{_pixels(size)}: {reason}",
        "leave --measure-size out; or train at that size: --image-size",
    )


def _pixels(size: Sequence[int]) -> str:
    return f"{size[1]} × {size[0]} pixels"
