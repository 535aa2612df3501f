"""FinetunedNetworks drawn block by block: a column a network, a row a part, a bar a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from hwnas.networks.blocks.cut import CutSpec
from hwnas.networks.blocks.families import CandidateSpec
from hwnas.networks.blocks.variants import VariantSpec
from hwnas.page import BLUE, GREEN, GREY, ORANGE, PINK

COLUMN, LABELS, BAR, GAP, BAR_LARGEST = 260, 70, 14, 4, 210
EXPANSION_LARGEST = 6
KERNEL_COLOURS = {3: BLUE, 5: ORANGE, 7: PINK}


@dataclass(frozen=True, kw_only=True)
class Box:
    """One part of one network. spec: None is the reference's own part."""

    spec: CandidateSpec | None
    macs: int


def draw(parts: Sequence[str], networks: Sequence[tuple[str, Sequence[Box]]]) -> ElementTree.Element:
    """The networks side by side.

    A candidate is drawn as one bar a layer: its colour tells the kernel, its length the channels inside
    of the layer over those of the block, a dashed edge that its convolutions are grouped, a dot at its end
    squeeze-and-excitation.

    Args:
        parts: names, from the stem to the head.
        networks: a name and one box a part.
    """
    depths = [max(_layers(boxes[row].spec) for _, boxes in networks) for row in range(len(parts))]
    heights = [depth * (BAR + GAP) + 48 for depth in depths]
    svg = ElementTree.Element(
        "svg",
        {
            "class": "drawing",
            "width": str(LABELS + COLUMN * len(networks)),
            "height": str(40 + sum(heights)),
            "role": "img",
            "aria-label": "architectures",
        },
    )
    for column, (name, boxes) in enumerate(networks):
        x, y = LABELS + COLUMN * column, 40
        _text(svg, x, 16, name, weight="600")
        for row, box in enumerate(boxes):
            _box(svg, x, y, box)
            if row:
                _line(svg, x + 8, y - 12, x + 8, y - 3)
            y += heights[row]
    y = 40
    for part, height in zip(parts, heights, strict=True):
        _text(svg, 0, y + BAR - 2, part, faint=True)
        y += height
    return svg


def _box(svg: ElementTree.Element, x: float, y: float, box: Box) -> None:
    spec = box.spec
    if spec is None or isinstance(spec, VariantSpec | CutSpec):
        _bar(svg, x, y, BAR_LARGEST / 2, GREY if spec is None else GREEN, False)
    else:
        colour = KERNEL_COLOURS.get(getattr(spec, "kernel", 0), GREEN)
        length = BAR_LARGEST * min(1.0, spec.inside / EXPANSION_LARGEST)
        for layer in range(spec.depth):
            top = y + layer * (BAR + GAP)
            _bar(svg, x, top, length, colour, getattr(spec, "layer", "") == "grouped")
            if getattr(spec, "se", False):
                _dot(svg, x + length + 9, top + BAR / 2)
    bottom = y + _layers(spec) * (BAR + GAP)
    _text(svg, x, bottom + 9, "the reference’s own" if spec is None else spec.name, faint=True, size=11)
    _text(svg, x, bottom + 23, f"{box.macs / 1e6:,.2f} MMACs", faint=True, size=11)


def _layers(spec: CandidateSpec | None) -> int:
    return 1 if spec is None or isinstance(spec, VariantSpec | CutSpec) else spec.depth


def _bar(svg: ElementTree.Element, x: float, y: float, length: float, colour: str, is_grouped: bool) -> None:
    style = {"fill": colour, "fill-opacity": "0.35" if is_grouped else "0.9", "stroke": colour}
    if is_grouped:
        style["stroke-dasharray"] = "4 3"
    size = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{length:g}", "height": str(BAR), "rx": "3"}
    ElementTree.SubElement(svg, "rect", {**size, **style})


def _dot(svg: ElementTree.Element, x: float, y: float) -> None:
    ElementTree.SubElement(svg, "circle", {"cx": f"{x:g}", "cy": f"{y:g}", "r": "4", "fill": PINK})


def _line(svg: ElementTree.Element, x1: float, y1: float, x2: float, y2: float) -> None:
    places = {"x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"}
    ElementTree.SubElement(svg, "line", {**places, "class": "wire", "stroke-width": "2"})


def _text(
    svg: ElementTree.Element,
    x: float,
    y: float,
    text: str,
    *,
    faint: bool = False,
    size: int = 13,
    weight: str = "400",
) -> None:
    style = {"x": f"{x:g}", "y": f"{y:g}", "font-size": str(size), "font-weight": weight}
    ElementTree.SubElement(svg, "text", {**style, "class": "faint" if faint else "ink"}).text = text
