"""What a runtime of this machine is: a module with two functions, and the network that one of them loads.

The functions run in the process that holds the network (`hwnas.devices.host.process`), never in hwnas' own:
a runtime's native code may print, end its process or never come back, and all of that is told there. ::

    def load_network(content: bytes, settings: Settings) -> LoadedNetwork
    def time_operators(content: bytes, settings: Settings, seconds: float) -> tuple[Layer, ...]

`content` is a serialised ONNX model, `settings` are plain values that the device class gives, `threads` among
them. A network that is loaded has run once, which allocates and fails now where it would fail later. Whatever
they raise is the reason why the network cannot be run; of a message the first line is told.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwnas.measurement import Option

if TYPE_CHECKING:
    import numpy as np

Settings = Mapping[str, Option]
Arrays = Sequence["np.ndarray[Any, Any]"]


class LoadedNetwork(ABC):
    """A network that a runtime holds ready, its inputs filled with seeded noise.

    Attributes:
        placement: execution unit → operator type → number of nodes.
    """

    placement: Mapping[str, Mapping[str, int]]

    @property
    @abstractmethod
    def run(self) -> Callable[[], object]:
        """Runs once, on the inputs that are there; what is timed."""

    @abstractmethod
    def outputs(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        """Run once on other inputs; inputs and outputs in the order of the graph."""


def take_samples(run: Callable[[], object], runs: int, seconds: float) -> list[float]:
    """Run at least `runs` times and at least `seconds` long; milliseconds of each run."""
    samples_ms: list[float] = []
    total_ns = 0
    while len(samples_ms) < runs or total_ns < seconds * 1e9:
        start_ns = time.perf_counter_ns()
        run()
        taken_ns = time.perf_counter_ns() - start_ns
        total_ns += taken_ns
        samples_ms.append(taken_ns / 1e6)
    return samples_ms


def noise(name: str, shape: Sequence[object], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Seeded normal noise for a floating-point input, zeros (a valid index) for any other.

    Raises:
        ValueError: the shape has a size that is no number.
    """
    import numpy as np

    if not all(isinstance(size, int) for size in shape):
        raise ValueError(f"input {name!r} has the open shape {list(shape)}")
    sizes = tuple(int(str(size)) for size in shape)
    array = np.zeros(sizes, dtype)
    if dtype.kind == "f" or "float" in dtype.name:
        array[...] = np.random.default_rng(0).standard_normal(sizes).astype(dtype)
    return array
