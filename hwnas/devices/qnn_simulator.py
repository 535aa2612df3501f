"""QNN's simulator of the Hexagon tensor processor (HTP) on this machine; its times mean nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

from hwnas.devices.base import Handle
from hwnas.devices.host import ort_session
from hwnas.devices.host.device import HostDevice
from hwnas.devices.options import check_options
from hwnas.errors import DeviceError
from hwnas.measurement import DeviceProfile, Fingerprint, Kind, Layer
from hwnas.network import Network

PROVIDER = "QNNExecutionProvider"
DEADLINE_S = 3600.0  # it takes minutes for what a phone does in milliseconds


class QnnSimulatorDevice(HostDevice):
    """Runs a graph as a phone's HTP would: outputs and placement are right. Nothing falls back to the CPU.

    Options of the profile:
        htp_arch: version of the Hexagon that is simulated.
        soc_model: QNN's number of its chip.

    Raises:
        DeviceError: an unknown option, or a precision that HTP does not have.
    """

    kind: Kind = "functional"

    def __init__(self, profile: DeviceProfile) -> None:
        options = check_options(profile, "QNN's simulator", htp_arch=75, soc_model=57)
        if profile.precision not in ("fp16", "int8"):
            raise DeviceError(f"profile {profile.name}: HTP has no {profile.precision}", "take fp16 or int8")
        super().__init__(replace(profile, options={}))
        self.profile = profile
        self.deadline_s = DEADLINE_S
        self._options_of_provider = {
            "htp_arch": str(options["htp_arch"]),
            "soc_model": str(options["soc_model"]),
            **({"enable_htp_fp16_precision": "1"} if profile.precision == "fp16" else {}),
        }

    def open_impl(self) -> None:
        super().open_impl()
        self._register()

    def fingerprint(self) -> Fingerprint:
        import onnxruntime_qnn

        options = ", ".join(f"{key}={value}" for key, value in self._options_of_provider.items())
        qnn = f"onnxruntime-qnn {onnxruntime_qnn.__version__}"
        return replace(super().fingerprint(), driver=qnn, runtime=f"HTP simulator, {options}")

    def prepare_impl(self, network: Network) -> Handle:
        return self._prepare_here(network)

    def prepare_fresh_impl(self, network: Network) -> Handle:
        return self._prepare_here(network)

    def layers_impl(self, network: Network) -> tuple[Layer, ...]:
        return ()

    def _load(self, content: bytes, stop: ort_session.Stop) -> ort_session.Loaded:
        import onnxruntime as ort
        import onnxruntime_qnn

        options = ort_session.session_options(self.threads)
        stop.loading(options)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        found = [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
        backend = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
        with _quiet():
            options.add_provider_for_devices(found[:1], backend | self._options_of_provider)
            inference = ort.InferenceSession(content, options)
        return ort_session.bind(inference, stop)

    def _register(self) -> None:
        import onnxruntime as ort

        try:
            import onnxruntime_qnn
        except ImportError:
            raise DeviceError(
                "QNN's simulator is not installed", "pip install 'hwnas[qnn]' (x86-64 and arm64 Linux)"
            ) from None
        if all(device.ep_name != PROVIDER for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """QNN's libraries print, on stdout as well, where it would get into our JSON."""
    sys.stdout.flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, nowhere):
            os.close(descriptor)
