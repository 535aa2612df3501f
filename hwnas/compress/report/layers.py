"""What is known of how much alike the layers of a device's networks are, and how the report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.compress.library.stitch import Choices
from hwnas.files import decode, encode, read_signed, write_signed
from hwnas.measurement import STRICT
from hwnas.page import Content, Grid, Plot, Section, Table, plot_text
from hwnas.ranges import Count, Figure

SCHEMA = "hwnas.similarity/1"
FILE = "similarity.json"

Matrix = tuple[tuple[Figure, ...], ...]


@dataclass(frozen=True, kw_only=True)
class NetworkSimilarity:
    """The layers of a network that was trained.

    Attributes:
        name: `reference`, or the checkpoint's.
        layers: by their names, which begin with the part's.
        own: linear CKA of any two of its layers.
        with_reference: of its layers (rows) and the reference's (columns); None for the reference itself.
        between_blocks: the mean CKA of two layers of different parts.
        loss: of its choices before finetuning; 0 of the reference.
        accuracy: by the task's metric on the test part; None without targets.
    """

    name: str
    layers: tuple[str, ...]
    own: Matrix
    with_reference: Matrix | None
    between_blocks: Figure
    loss: Figure
    accuracy: Figure | None


@dataclass(frozen=True, kw_only=True)
class StitchedSimilarity:
    """A network of the front, as it was stitched."""

    choices: Choices
    loss: Figure
    between_blocks: Figure


@dataclass(frozen=True, kw_only=True)
class SimilarityRecord:
    """`similarity.json` of a device.

    Attributes:
        images: of the part `val`, by which layers are compared.
        networks: the reference and the checkpoints.
        front: all networks of the front.
        kendall_tau: of `between_blocks` and the loss over the front; None where it has fewer than 3 networks,
            or all are equal in one.
    """

    __pydantic_config__ = STRICT
    device: str
    images: Count
    networks: tuple[NetworkSimilarity, ...]
    front: tuple[StitchedSimilarity, ...]
    kendall_tau: Figure | None

    @staticmethod
    def read(folder: Path) -> SimilarityRecord:
        """Read a device's record. Raises InputError: it is not what was written."""
        return decode(SimilarityRecord, read_signed(folder / FILE, SCHEMA), folder / FILE)

    def write(self, folder: Path) -> None:
        """Write a device's record."""
        write_signed(folder / FILE, {"schema": SCHEMA, **encode(self)})

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema's name and version; see docs/json.md."""
        return {"schema": SCHEMA, **encode(self)}


def layers(found: SimilarityRecord) -> Section:
    """Heat maps of the networks, and what they have to do with the loss (DONNAv2 figure 4)."""
    reference, *others = found.networks
    maps = [_heat_map("reference", reference.own, reference.layers, reference.layers)]
    for network in others:
        maps.append(_heat_map(network.name, network.own, network.layers, network.layers))
        if network.with_reference is not None:
            name = f"{network.name}, reference"
            maps.append(_heat_map(name, network.with_reference, reference.layers, network.layers))
    rows = [
        [
            network.name,
            f"{network.between_blocks:.3f}",
            f"{network.loss:.4f}",
            "–" if network.accuracy is None else f"{network.accuracy:.4g}",
        ]
        for network in found.networks
    ]
    tau = "–" if found.kendall_tau is None else f"{found.kendall_tau:.2f}"
    content: list[Content] = [
        f"Linear CKA of any two convolutions or linear layers, on {found.images} images of val: 1 where two "
        "layers say the same of the images, 0 where they have nothing in common. Layers are in the order in "
        "which they are called.",
        Grid(plots=maps),
        Table(columns=("", "CKA between parts", "loss, not finetuned", "quality"), rows=rows),
        "CKA between parts is the mean over layers of different parts. Kendall’s tau between it and the "
        f"loss, over the {len(found.front)} networks of the front as they were stitched: {tau}.",
    ]
    return Section(heading="Layers", content=content)


def _heat_map(name: str, matrix: Matrix, across: tuple[str, ...], down: tuple[str, ...]) -> Plot:
    return Plot(
        data=[
            {
                "type": "heatmap",
                "z": [list(row) for row in matrix],
                "x": [plot_text(layer) for layer in across],
                "y": [plot_text(layer) for layer in down],
                "zmin": 0,
                "zmax": 1,
                "colorscale": "Viridis",
                "hovertemplate": "%{y}<br>%{x}<br>%{z:.2f}<extra></extra>",
            }
        ],
        layout={
            "title": {"text": plot_text(name), "font": {"size": 13}},
            "xaxis": {"showticklabels": False, "ticks": ""},
            "yaxis": {"showticklabels": False, "ticks": "", "autorange": "reversed"},
        },
        label=f"{name}: similarity of layers",
        height_px=360,
    )
