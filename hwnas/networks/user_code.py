"""Code of one's own, by `module:name`: networks, data, tasks."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

from hwnas.ending import contained
from hwnas.errors import InputError, first_line


def import_object(name: str) -> object:
    """What a module in the current folder, or an installed one, holds under a name.

    Args:
        name: `module:name`.

    Raises:
        InputError: there is none, or importing it fails.
    """
    module_name, _, attribute = name.partition(":")
    if module_name.endswith(".py"):
        module = module_name.removesuffix(".py").replace(os.sep, ".")
        raise InputError(f"{module_name} is a file, where a module is named", f"write {module}:{attribute}")
    folder = os.getcwd()  # noqa: PTH109
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with contained(module_name), redirect_stdout(sys.stderr):  # what it prints is no result
            found: object = getattr(importlib.import_module(module_name), attribute)
    except InputError:
        raise
    except Exception as error:  # whatever the user's module does while it is imported
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        raise InputError(
            f"cannot import {name}: {kind}{first_line(error)}",
            f"run hwnas where {module_name}.py lies, or install the package that holds it; "
            f"`python -c 'import {module_name}'` shows what is wrong in it",
        ) from error
    return found


def import_function(name: str) -> Callable[[], object]:
    """A function without required arguments. Raises InputError as `import_object`, or if it is none."""
    function = import_object(name)
    if not callable(function) or inspect.ismodule(function):
        raise InputError(f"{name} is not a function", "name a function without required arguments")
    return function


def call_function(name: str, fix: str) -> object:
    """What a function without required arguments returns.

    Args:
        name: `module:function`.
        fix: told where it fails.

    Raises:
        InputError: as `import_object`, or it is no function, or it fails.
    """
    function = import_function(name)
    try:
        with contained(name), redirect_stdout(sys.stderr):
            return function()
    except InputError:
        raise
    except Exception as error:  # whatever the user's function does
        raise InputError(f"{name} failed: {type(error).__name__}: {first_line(error)}", fix) from error
