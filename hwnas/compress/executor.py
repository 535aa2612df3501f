"""Where independent tasks run: in this process, or on a Ray cluster. One of the two files that know Ray.

A task is plain values in, plain values out; it writes no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

from hwnas.devices.remote import connect
from hwnas.ending import contained
from hwnas.errors import HwnasError, InputError, first_line

Task = TypeVar("Task")
Result = TypeVar("Result")
OnProgress = Callable[[int, float], None]
"""Told how far a task is: a step and a figure."""

RETRIES = 5  # of a task whose node dies
IN_FLIGHT = 4  # tasks for each that can run at once: the cluster never waits for the driver
MIN_IN_FLIGHT = 64
PATIENCE_S = 60.0  # without a result, until it is asked whether any node can run a task


class Context(Protocol):
    """What all tasks of a kind work on."""

    def pack(self) -> Packed:
        """The same as plain values that can go to another machine."""


class Packed(Protocol):
    """A context on its way."""

    @property
    def needs(self) -> Mapping[str, int]:
        """What a task takes of a machine: `CPU`, in threads, and `GPU`."""

    def open(self) -> Any:
        """The context, on the machine that this is called on."""


class Executor(Protocol):
    """Runs tasks.

    Attributes:
        is_local: in this process, on the very context that it is given.
    """

    is_local: bool

    def require(self, needs: Mapping[str, int]) -> None:
        """Refuse tasks where they could never run.

        Args:
            needs: as `Packed.needs`.

        Raises:
            InputError: no machine has so much.
        """

    def run(
        self,
        function: Callable[[Any, Task, OnProgress], Result],
        context: Context,
        tasks: Iterable[Task],
        on_progress: Callable[[Task, int, float], None],
    ) -> Iterator[tuple[Task, Result]]:
        """Each task with its result, as soon as that is there, in any order.

        Args:
            function: of a module, given the context, a task and an `OnProgress`.
            on_progress: called with the task and how far it is: at once by tasks in this process, and once
                it is done by a task elsewhere.
        """


class LocalExecutor:
    """One task after the other, in this process."""

    is_local = True

    def require(self, needs: Mapping[str, int]) -> None:
        """Threads may be more than cores."""

    def run(
        self,
        function: Callable[[Any, Task, OnProgress], Result],
        context: Context,
        tasks: Iterable[Task],
        on_progress: Callable[[Task, int, float], None],
    ) -> Iterator[tuple[Task, Result]]:
        for task in tasks:
            yield task, function(context, task, partial(on_progress, task))


class RayExecutor:
    """Tasks on the nodes of a Ray cluster; one whose node dies is run again on another.

    Args:
        address: of the cluster, `auto` for the one that this machine belongs to.
    """

    is_local = False

    def __init__(self, address: str) -> None:
        self._ray = connect(address)

    def require(self, needs: Mapping[str, int]) -> None:
        """As `Executor.require`: Ray would let them wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in nodes):
            return
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needs}
        raise InputError(
            f"a task takes {_listed(needs)} (--threads, --train-on), the nodes of the Ray cluster have "
            f"{_listed(most)} at most",
            "start a node that has them: ray start --address=…; or begin another run (--out PATH) with "
            "fewer --threads, or --train-on cpu",
        )

    def close(self) -> None:
        """Part from the cluster."""
        self._ray.shutdown()

    def run(
        self,
        function: Callable[[Any, Task, OnProgress], Result],
        context: Context,
        tasks: Iterable[Task],
        on_progress: Callable[[Task, int, float], None],
    ) -> Iterator[tuple[Task, Result]]:
        """As `Executor.run`.

        Raises:
            HwnasError: a task failed, its nodes died again and again, or none is left that can run it.
        """
        ray = self._ray
        packed = context.pack()
        self.require(packed.needs)
        # Not an argument of its own: Ray would fetch it before the task can find it in its worker's memory.
        shared = [ray.put((function, packed))]
        needs, there = packed.needs, ray.cluster_resources()
        work = ray.remote(_work).options(
            num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), max_retries=RETRIES
        )
        slots = min(there.get(name, 0) / amount for name, amount in needs.items())
        limit = max(MIN_IN_FLIGHT, int(IN_FLIGHT * slots))
        waiting = iter(tasks)
        running: dict[Any, Task] = {}
        try:
            while True:
                for task in waiting:
                    running[work.remote(shared, task)] = task
                    if len(running) >= limit:
                        break
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE_S)
                if not ready:
                    self.require(needs)
                for reference in ready:
                    task = running.pop(reference)
                    result, told = self._result(reference)
                    for what in told:
                        on_progress(task, *what)
                    yield task, result
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, HwnasError):
                raise error.cause from None
            reason, fix = first_line(error.cause), "see the node's logs with `ray logs`"
        except errors.RayError as error:
            reason, fix = first_line(error), "look at the nodes with `ray status`"
        raise HwnasError(
            f"a task failed on the Ray cluster: {reason}", f"{fix}, and give the same command again"
        )


def _listed(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def _work(shared: list[Any], task: Any) -> tuple[Any, list[tuple[int, float]]]:
    """What a worker does: each one opens the context once. Gives the result and what was told."""
    told: list[tuple[int, float]] = []
    with contained():
        function, context = _opened(shared[0])
        return function(context, task, lambda *what: told.append(what)), told


@lru_cache(maxsize=1)
def _opened(reference: Any) -> tuple[Any, Any]:
    import ray

    function, packed = ray.get(reference)
    return function, packed.open()


@contextmanager
def executor_at(address: str) -> Iterator[Executor]:
    """Tasks run in this process, or on a Ray cluster, from which this process parts at the end.

    Args:
        address: of the cluster; empty for this process.

    Raises:
        InputError: Ray is not installed, or nothing answers there.
    """
    if not address:
        yield LocalExecutor()
        return
    executor = RayExecutor(address)
    try:
        yield executor
    finally:
        executor.close()
