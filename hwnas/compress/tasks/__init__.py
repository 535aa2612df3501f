"""What networks are for: a task by its name, or one's own."""

from __future__ import annotations

from hwnas.compress.tasks.task import Task
from hwnas.errors import InputError
from hwnas.networks.user_code import import_object
from hwnas.plugins import Registry

TASKS = Registry("hwnas.tasks", "task", "give one of them, or one's own: --task module:NAME (docs/tasks.md)")


def load_task(text: str) -> Task:
    """Return a task by its name, a kind of tasks by `NAME:ARGUMENT`, or one's own by `module:NAME`.

    What is installed as a function makes the task from the argument, an empty text where there is none.

    Raises:
        InputError: there is none, or the argument means nothing to it.
    """
    name, colon, argument = text.partition(":")
    if colon and name not in TASKS.names():
        return _checked(text, import_object(text))
    found = TASKS.load(name)
    if isinstance(found, Task) or not callable(found):
        if colon:
            raise InputError(f"the task {name} takes no argument, {argument!r} was given", f"--task {name}")
        return _checked(text, found)
    return _checked(text, found(argument))


def _checked(text: str, found: object) -> Task:
    if not isinstance(found, Task):
        raise InputError(
            f"{text} is a {type(found).__name__}, not a task", "let the name be a hwnas.Task (docs/tasks.md)"
        )
    return found
