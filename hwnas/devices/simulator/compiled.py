"""Compiled functions that Python calls, with a cache on disk that is never stale.

numba keys a cached function by its own file, not by the functions that it calls. So the name of each cached
function, which names its files on disk, ends with a stamp of all sources that may be compiled into it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit


def stamp_of(folder: Path) -> str:
    """Hash the Python sources below a folder: what changes, comes or goes changes the result."""
    digest = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        content = source.read_bytes()
        digest.update(f"{source.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


STAMP = stamp_of(Path(__file__).parent)


def cached(function: Callable[..., Any]) -> Any:
    """Compile a function on its first call, or load it from the cache of the same sources.

    Where numba finds no folder that it may write to, every process compiles for itself.
    """
    function.__qualname__ = f"{function.__qualname__}_{STAMP}"
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError:
        return njit(error_model="numpy")(function)
