"""Examples in docstrings are a section of their own for mkdocstrings, as its Google style wants it."""

from __future__ import annotations

from typing import Any

import griffe

EXAMPLE = "\n\n>>> "


class Examples(griffe.Extension):
    """Puts what begins with `>>>` under the heading `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a function or class that was read."""
        if obj.docstring is None or EXAMPLE not in obj.docstring.value:
            return
        text, _, examples = obj.docstring.value.partition(EXAMPLE)
        lines = f">>> {examples}".splitlines()
        obj.docstring.value = "\n".join([text, "", "Examples:", *(f"    {line}" for line in lines)])
