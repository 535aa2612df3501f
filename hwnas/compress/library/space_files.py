"""The spaces that come with hwnas: their files."""

from __future__ import annotations

import importlib.resources
from importlib.resources.abc import Traversable


def space_files() -> dict[str, Traversable]:
    """The files of the spaces, by name."""
    folder = importlib.resources.files("hwnas.compress.library") / "spaces"
    files = {file.name: file for file in folder.iterdir() if file.name.endswith(".toml")}
    return {name.removesuffix(".toml"): files[name] for name in sorted(files)}
