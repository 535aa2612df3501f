"""Packages that are named like a public function, and are called like it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package such as `hwnas.compress`: once imported, it stands where the function of its name stood."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function of `hwnas.api` that has the package's name."""
        function = getattr(import_module("hwnas.api"), self.__name__.rpartition(".")[2])
        return function(*arguments, **options)
