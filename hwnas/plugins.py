"""What people add to hwnas, by name: each kind is an entry-point group, ours and every other package's."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hwnas.ending import contained
from hwnas.errors import HwnasError, InputError
from hwnas.extras import missing_package
from hwnas.spelling import did_you_mean


class Registry:
    """All installed things of one kind.

    Args:
        group: the entry-point group, such as `hwnas.strategies`.
        noun: what one of them is, for messages: `strategy`.
        fix: what helps where a name is not known.
        error: raised in place of InputError.
    """

    def __init__(self, group: str, noun: str, fix: str, error: type[HwnasError] = InputError) -> None:
        self.group = group
        self.noun = noun
        self._fix = fix
        self._error = error

    def names(self) -> list[str]:
        """Return the names of all that are installed, whether or not they can be imported."""
        return sorted(self._entries())

    def load(self, name: str) -> Any:
        """Import one of them.

        Raises:
            InputError, or the registry's own error: no such name, or its package cannot be imported.
        """
        entry = self._entries().get(name)
        if entry is None:
            hint = did_you_mean(name, self.names())
            known = ", ".join(self.names()) or "none"
            raise self._error(f"there is no {self.noun} {name!r}; known are {known}", f"{hint}{self._fix}")
        try:
            with contained(entry.value):
                return entry.load()
        except InputError as error:
            raise self.broken(name, error.cause) from error
        except Exception as error:  # a plugin may fail in any way while it is imported
            if missing := missing_package(error):
                raise self._error(*missing) from error
            raise self.broken(name, f"{type(error).__name__}: {error}") from error

    def broken(self, name: str, reason: str) -> HwnasError:
        """Return the error of one that cannot be used."""
        entry = self._entries()[name]
        package = entry.dist.name if entry.dist else entry.module.partition(".")[0]
        return self._error(
            f"{self.noun} {name!r} cannot be imported: {reason}", f"pip install --upgrade {package}"
        )

    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=self.group)}
