"""Data that a program gives as objects, kept in the cache: other processes and later runs find them there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from torch import Tensor

from hwnas.compress.data.dataset import Data, DataFacts, Images, Pixels, Targets
from hwnas.compress.data.own import check_data
from hwnas.errors import InputError
from hwnas.files import (
    decode,
    encode,
    hwnas_cache,
    read_bytes,
    read_signed,
    sha256,
    write_bytes,
    write_signed,
)
from hwnas.measurement import STRICT

SCHEMA = "hwnas.data/2"
PREFIX = "stored:"
PARTS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """`data.json`: what is known of stored data.

    Attributes:
        images_sha256: of the file with pixels and labels.
    """

    __pydantic_config__ = STRICT
    facts: DataFacts
    images_sha256: str


def store_data(data: Data) -> str:
    """Keep data in the cache, and return the name by which `load_data` finds them again.

    Raises:
        InputError: what is wrong with the data is named.
    """
    from safetensors.torch import save

    data = check_data(data)
    folder = hwnas_cache() / "data" / data.hash[:32]
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        images: Images = getattr(data, part)
        tensors |= _named(f"{part}.pixels", images.pixels) | _named(f"{part}.labels", images.labels)
    content = save(_apart(tensors))
    write_bytes(folder / "images.safetensors", content)
    facts = DataFacts(**{field.name: getattr(data, field.name) for field in fields(DataFacts)})
    record = DataRecord(facts=facts, images_sha256=sha256(content))
    write_signed(folder / "data.json", {"schema": SCHEMA, **encode(record)})
    return f"{PREFIX}{folder}"


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each in memory of its own where two have some in common."""
    taken: dict[int, list[tuple[int, int]]] = defaultdict(list)
    found = {}
    for name, tensor in tensors.items():
        ranges, start = taken[tensor.untyped_storage().data_ptr()], tensor.data_ptr()
        end = start + tensor.nbytes
        is_shared = any(start < other_end and other < end for other, other_end in ranges)
        ranges.append((start, end))
        found[name] = tensor.clone() if is_shared else tensor
    return found


def load_stored(name: str) -> Data:
    """Load what `store_data` kept. Raises InputError: it is missing or damaged."""
    from safetensors.torch import load

    folder = Path(name.removeprefix(PREFIX))
    record = decode(DataRecord, read_signed(folder / "data.json", SCHEMA), folder / "data.json")
    content = read_bytes(folder / "images.safetensors")
    if sha256(content) != record.images_sha256:
        raise InputError(f"{folder}/images.safetensors is damaged", "give the data to hwnas.compress again")
    tensors = load(content)
    train, val, test = (
        Images(pixels=_found(f"{part}.pixels", tensors), labels=_found(f"{part}.labels", tensors))
        for part in PARTS
    )
    return Data(train=train, val=val, test=test, **vars(record.facts))


def _named(name: str, tree: Pixels | Targets) -> dict[str, Tensor]:
    """Tensors by name: `train.labels`, `test.pixels/0` of a tuple, `train.labels:boxes` of a dictionary."""
    if tree is None:
        return {}
    if isinstance(tree, Tensor):
        return {name: tree.contiguous()}
    if isinstance(tree, dict):
        items = [(f"{name}:{key}", each) for key, each in tree.items()]
    else:
        items = [(f"{name}/{number}", each) for number, each in enumerate(tree)]
    return {key: tensor for text, each in items for key, tensor in _named(text, each).items()}


def _found(name: str, tensors: Mapping[str, Tensor]) -> Pixels | Targets:
    """What `_named` took apart."""
    if name in tensors:
        return tensors[name]
    keys = {text.removeprefix(f"{name}:").split("/")[0] for text in tensors if text.startswith(f"{name}:")}
    if keys:
        return {key: _found(f"{name}:{key}", tensors) for key in sorted(keys)}
    count = sum(text.startswith(f"{name}/") for text in tensors)
    return tuple(tensors[f"{name}/{number}"] for number in range(count)) or None
