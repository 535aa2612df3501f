"""Pages of the site that are made from the code: the command line's, and those of the public functions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from mkdocs.structure.files import File, Files

import hwnas.api


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages."""
    for name, text in (("cli.md", command_line()), ("functions.md", functions())):
        files.append(File.generated(config, name, content=text))
    return files


def command_line() -> str:
    """Return what typer tells of all commands, as Markdown."""
    command = [sys.executable, "-m", "typer", "hwnas.cli.main", "utils", "docs", "--name", "hwnas"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return told.replace("# `hwnas`", "# The command line", 1)


def functions() -> str:
    """Return a page on which mkdocstrings puts each public name."""
    names = (name for name in hwnas.__all__ if not name.startswith("_"))
    return "\n".join(["# Functions and classes", "", *(f"::: hwnas.{name}" for name in names), ""])
