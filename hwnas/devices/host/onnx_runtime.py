"""ONNX Runtime as a runtime of this machine; see `runtime`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hwnas.devices.host import layers, ort_session
from hwnas.devices.host.runtime import Arrays, LoadedNetwork, Settings
from hwnas.measurement import Layer

if TYPE_CHECKING:
    import numpy as np


class _Network(LoadedNetwork):
    def __init__(self, content: bytes, settings: Settings) -> None:
        self._loaded = ort_session.load(content, ort_session.session_options(int(settings["threads"])))
        self.placement = ort_session.placement(self._loaded.session)

    @property
    def run(self) -> Callable[[], object]:
        return partial(self._loaded.session.run_with_iobinding, self._loaded.binding)

    def outputs(self, inputs: Arrays) -> list[np.ndarray[Any, Any]]:
        return ort_session.outputs(self._loaded, inputs)


def load_network(content: bytes, settings: Settings) -> LoadedNetwork:
    """See `runtime`."""
    return _Network(content, settings)


def time_operators(content: bytes, settings: Settings, seconds: float) -> tuple[Layer, ...]:
    """See `runtime`."""
    return layers.layers(content, int(settings["threads"]), seconds)
