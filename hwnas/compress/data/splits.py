"""What the folders of a data set mean: its parts, its classes, or neither.

Folders named `train`, `val` (`valid`, `validation`) and `test` are the parts. Inside of a part (or of the
whole, where there are none) the folders are classes if every image lies exactly one folder deep; otherwise
the images have no labels. Names are compared as they are read: whatever Unicode form they are stored in, and
whatever blanks stand around them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hwnas.compress.data.images import SUFFIXES
from hwnas.compress.data.sources import Source, printable
from hwnas.errors import InputError

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
VAL_SHARE = 0.1
TEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Which images belong to which part, as positions among the source's names.

    Attributes:
        labels: class index by position; None where the images have no labels.
        classes: the class folders, in the order of the indices.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]


def arrange(source: Source) -> Arrangement:
    """Find parts and classes, and make the parts that are not there.

    `val` becomes `test` where there is no `test`; a missing `val` is a tenth of `train`; without any parts
    it is a tenth and `test` a fifth of all images. What is taken is spread evenly over the classes and
    depends on nothing but the images' names.

    Raises:
        InputError: no images, an empty part, one class only, or a class that is not in `train`.
    """
    if not source.names:
        raise InputError(f"{source.text} holds no images", f"images end in {' '.join(SUFFIXES)}")
    paths = [_as_read(name) for name in source.names]
    while _wrapped(paths):
        paths = [path[1:] for path in paths]
    names = ["/".join(path) for path in paths]
    parts = _parts(source, paths)
    inner = [path[1:] for path in paths] if parts else paths
    labels, classes = _labels(source, inner)
    parts = parts or {"train": list(range(len(paths)))}
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    if "test" not in parts:
        parts |= _take(names, parts["train"], labels, {"test": TEST_SHARE, "val": VAL_SHARE})
    elif "val" not in parts:
        parts |= _take(names, parts["train"], labels, {"val": VAL_SHARE})
    _check(source, parts, labels, classes)
    return Arrangement(
        train=tuple(parts["train"]),
        val=tuple(parts["val"]),
        test=tuple(parts["test"]),
        labels=None if labels is None else tuple(labels),
        classes=classes,
    )


def _as_read(name: str) -> list[str]:
    """The folders of a path and its file as people read them: in one Unicode form, without blanks around."""
    return [folder.strip() or folder for folder in unicodedata.normalize("NFC", name).split("/")]


def _check_spelling(source: Source) -> None:
    """Refuse two folders in one place that read the same: nobody can tell whether they are one class."""
    spelled: dict[tuple[str, ...], str] = {}
    for name in source.names:
        stored = name.split("/")
        for depth, (folder, text) in enumerate(zip(stored[:-1], _as_read(name), strict=False)):
            known = spelled.setdefault((*stored[:depth], text), folder)
            if known != folder:
                place = "/".join([source.text, *map(printable, stored[:depth])])
                raise InputError(
                    f"{place} holds two folders that read {printable(text)}: {known!a} and "
                    f"{folder!a} differ in their Unicode form or in blanks only",
                    "move the images of one into the other, or give it another name",
                )


def _wrapped(paths: Sequence[Sequence[str]]) -> bool:
    """Whether everything lies in one folder that holds only folders and means nothing."""
    first = {path[0] for path in paths}
    return len(first) == 1 and not first & PARTS.keys() and all(len(path) > 2 for path in paths)


def _parts(source: Source, paths: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Positions by part; none where the first folders are no parts."""
    first = {path[0] for path in paths if len(path) > 1}
    named = {folder for folder in first if folder.lower() in PARTS}
    meant = {PARTS[folder.lower()] for folder in named}
    if not named or (named != first and len(meant) < 2):
        return {}
    if "train" not in meant:
        raise InputError(
            f"{source.text} holds {' and '.join(sorted(named))} but no train",
            "put the images to train with into a folder train beside it",
        )
    others = {path[0] for path in paths} - named
    if others:
        some = ", ".join(printable(name) for name in sorted(others)[:3])
        raise InputError(
            f"{source.text} holds the parts {', '.join(sorted(named))}, and {some} beside them",
            "move what is no part of the data elsewhere",
        )
    folders = (_as_read(folder)[0] for folder in source.folders)
    empty = [folder for folder in folders if folder.lower() in PARTS and folder not in first]
    if empty:
        raise InputError(
            f"{source.text}/{empty[0]} holds no images",
            "fill it, or remove it: that part is then made from the others",
        )
    parts: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        parts[PARTS[path[0].lower()]].append(position)
    return dict(parts)


def _labels(source: Source, paths: Sequence[Sequence[str]]) -> tuple[list[int] | None, tuple[str, ...]]:
    if not all(len(path) == 2 for path in paths):
        return None, ()
    _check_spelling(source)
    classes = tuple(sorted({path[0] for path in paths}))
    if len(classes) == 1:
        raise InputError(
            f"{source.text} has one class only, {printable(classes[0])}: there is nothing to tell apart",
            "add a folder for each class; images without labels lie in no folder of a class",
        )
    index = {name: number for number, name in enumerate(classes)}
    return [index[path[0]] for path in paths], tuple(map(printable, classes))


def _take(
    names: Sequence[str], positions: list[int], labels: list[int] | None, shares: dict[str, float]
) -> dict[str, list[int]]:
    """Take shares out of some images, class by class, in the order of their names' hashes."""
    groups: dict[int, list[int]] = defaultdict(list)
    for position in positions:
        groups[0 if labels is None else labels[position]].append(position)
    taken: dict[str, list[int]] = {"train": [], **{part: [] for part in shares}}
    for group in groups.values():
        group.sort(key=lambda position: _name_hash(names[position]))
        start = 0
        for part, share in shares.items():
            count = max(1, round(len(group) * share)) if len(group) > len(shares) else 0
            taken[part] += group[start : start + count]
            start += count
        taken["train"] += group[start:]
    return {part: sorted(found) for part, found in taken.items()}


def _name_hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def _check(
    source: Source, parts: dict[str, list[int]], labels: list[int] | None, classes: Sequence[str]
) -> None:
    for part, least in (("train", 2), ("val", 1), ("test", 1)):
        if len(parts[part]) < least:
            raise InputError(
                f"{source.text}: {len(source.names)} images leave {len(parts[part])} for the part {part}",
                "add images",
            )
    if labels is not None:
        missing = set(_seen(labels, parts["val"] + parts["test"])) - set(_seen(labels, parts["train"]))
        if missing:
            name = classes[min(missing)]
            alike = [other for other in classes if other != name and other.casefold() == name.casefold()]
            fix = "add images of it to train, or remove it from the other parts"
            raise InputError(
                f"{source.text}: the class {name} is not in train",
                f"if it is {alike[0]}, give its folder that name; otherwise {fix}" if alike else fix,
            )


def _seen(labels: Sequence[int], positions: Iterable[int]) -> Iterable[int]:
    return (labels[position] for position in positions)
