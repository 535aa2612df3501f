"""This host's CPU, driven by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwnas.devices.base import Handle
from hwnas.devices.host import ort_session
from hwnas.devices.host.cpu import DEADLINE_S, CpuDevice
from hwnas.devices.host.ort_session import PROVIDER, Loaded, Stop
from hwnas.devices.host.process import ONNX_RUNTIME
from hwnas.devices.host.runtime import Arrays
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DEADLINE_S", "HostDevice"]


class HostDevice(CpuDevice):
    """The CPU of the machine that hwnas runs on, by ONNX Runtime.

    A graph that somebody else made is run in a process of its own, which is ended at its deadline and is
    refused more memory than there is. A network that was made from a torch module is run here: its first run
    is ended between two operators.
    """

    runtime = ONNX_RUNTIME
    runtime_name = "ONNX Runtime"

    def runtime_details(self) -> list[str]:
        import onnxruntime as ort

        return [f"onnxruntime {ort.__version__} {PROVIDER}"]

    def prepare_impl(self, network: Network) -> Handle:
        return super().prepare_impl(network) if network.is_foreign else self._prepare_here(network)

    def prepare_fresh_impl(self, network: Network) -> Handle:
        return super().prepare_impl(network)

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        if not isinstance(handle.state, Loaded):
            return super().sample_impl(handle, runs, seconds)
        self._interrupt = lambda: None  # it has ended once, and its input is the same
        try:
            return ort_session.sample(handle.state, runs, seconds)
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise self._refused(handle.network_hash[:12], error) from error

    def outputs_impl(self, handle: Handle, runs: Sequence[Arrays]) -> list[list[np.ndarray[Any, Any]]]:
        if not isinstance(handle.state, Loaded):
            return super().outputs_impl(handle, runs)
        self._interrupt = lambda: None
        try:
            return [ort_session.outputs(handle.state, inputs) for inputs in runs]
        except Exception as error:
            raise self._refused(handle.network_hash[:12], error) from error

    def release_impl(self, handle: Handle) -> None:
        if isinstance(handle.state, Loaded):
            handle.state = None  # the session and its thread pool go with the last reference
        else:
            super().release_impl(handle)

    def _prepare_here(self, network: Network) -> Handle:
        batched = self._batched(network)
        content = self.content(batched)
        stop = Stop()
        self._interrupt = stop
        try:
            loaded = self._load(content, stop)
        except Exception as error:
            raise self._refused(network.name, error) from error
        return Handle(
            network_hash=network.hash,
            state=loaded,
            placement=ort_session.placement(loaded.session),
            metrics={"batch_size": float(batched.batch_size)},
        )

    def _load(self, content: bytes, stop: Stop) -> Loaded:
        return ort_session.load(content, ort_session.session_options(self.threads), stop)
