"""Packages that are named like a public function, are called like it, and say of themselves what it says."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature


class CallablePackage(ModuleType):
    """A package such as `hwnas.compress`: once imported, it stands where the function of its name stood."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function of `hwnas.api` that has the package's name."""
        return self._function(*arguments, **options)

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module("hwnas.api"), self.__name__.rpartition(".")[2])
        return function

    @property
    def __signature__(self) -> Signature:
        from inspect import signature

        return signature(self._function)


CallablePackage.__doc__ = property(lambda self: self._function.__doc__)  # type: ignore[assignment]
