"""How long-running steps say where they are."""

from __future__ import annotations


class Progress:
    """Receives what happens; this one shows nothing. The command line shows it on stderr.

    >>> import hwnas
    >>> class Shown(hwnas.Progress):
    ...     def advance(self, step, done, total, remark=""):
    ...         print(f"{step}: {done} of {total} {remark}")
    >>> Shown().advance("distill", 1, 4, "nsr 0.1")
    distill: 1 of 4 nsr 0.1
    """

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        """`done` of `total` units of a step are through; `remark` is short (a loss, a candidate).

        >>> Shown().advance("train", 3, 3, "loss 0.2")
        train: 3 of 3 loss 0.2
        """

    def stage(self, number: int, total: int, name: str) -> None:
        """A stage begins, the `number`th of `total` of a whole command.

        >>> hwnas.Progress().stage(2, 4, "candidates")
        """

    def live(self, text: str) -> None:
        """What is known so far, in one line or several, in the place of what was said here before.

        An empty text ends it. A command that is interrupted shows the last one.

        >>> hwnas.Progress().live("repeat 3: 1.23 ms")
        """

    def say(self, text: str) -> None:
        """One line that stays.

        >>> hwnas.Progress().say("nobody hears this")
        """
