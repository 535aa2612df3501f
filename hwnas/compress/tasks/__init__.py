"""What networks are for: a task by its name, or one's own."""

from __future__ import annotations

from hwnas.compress.tasks.task import Task
from hwnas.errors import InputError
from hwnas.networks.user_code import import_object
from hwnas.plugins import Registry

TASKS = Registry("hwnas.tasks", "task", "give one of them, or one's own: --task module:NAME (docs/tasks.md)")


def load_task(text: str) -> Task:
    """Return a task by its name, or one's own by `module:NAME`.

    Raises:
        InputError: there is none.
    """
    found = import_object(text) if ":" in text else TASKS.load(text)
    if not isinstance(found, Task):
        raise InputError(
            f"{text} is a {type(found).__name__}, not a task", "let the name be a hwnas.Task (docs/tasks.md)"
        )
    return found
