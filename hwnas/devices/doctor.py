"""Says which devices can be used here, and walks from a profile to a measured network step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hwnas.devices.base import Device, Handle
from hwnas.devices.registry import device_class
from hwnas.errors import DeviceBusyError, HwnasError
from hwnas.measurement import DeviceProfile, Kind
from hwnas.network import Network, Part

LARGEST_DIFFERENCE = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.2}
"""Of an output from ONNX Runtime's in fp32, as a share of the largest one."""


@dataclass(frozen=True)
class Finding:
    """One step of the way; `fix` is empty where nothing is wrong."""

    step: str
    text: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """Whether a device can be used here.

    Attributes:
        device: the name of its profile.
        runtime: the device class: `host`, `cuda`, `android`, …
        kind: what its latencies are; empty where that is not known.
        is_here: whether it could be opened, or another process uses it.
        text: the chip, or why it cannot be used.
        fix: what to do; empty where it can be used.
    """

    device: str
    runtime: str
    kind: Kind | Literal[""]
    is_here: bool
    text: str
    fix: str = ""


def reach(profile: DeviceProfile) -> Reached:
    """Open a device, read its chip and close it; nothing is measured, and no job is given to a queue."""
    kind: Kind | Literal[""] = ""
    is_here, fix = True, ""
    try:
        device = device_class(profile.device)(profile)
        kind = device.kind
        device.lock_wait_s = 0.0
        with device:
            text = device.fingerprint().chip
    except DeviceBusyError as error:
        text = error.cause
    except HwnasError as error:
        is_here, text, fix = False, error.cause, error.fix
    return Reached(
        device=profile.name, runtime=profile.device, kind=kind, is_here=is_here, text=text, fix=fix
    )


def examine(profile: DeviceProfile) -> Iterator[Finding]:
    """Yield one finding a step, in order. One with a fix is the last: what follows needs it.

    A queue is reached and given no job, which may cost somebody money.
    """
    step = "profile and options"
    try:
        device = device_class(profile.device)(profile)
        yield Finding(step, f"{profile.description}; its latencies are {device.kind}")
        step = "runtime and device"
        with device:
            known = device.fingerprint()
            yield Finding(step, f"{known.chip}; {known.runtime}; {known.precision}")
            if isinstance(device, Device):
                step = "a tiny network"
                network = tiny_network()
                handle = device.prepare(network)
                samples_ms = device.sample(handle, runs=5, seconds=0)
                where = ", ".join(handle.placement) or "a unit that is not told"
                yield Finding(step, f"{min(samples_ms):.3f} ms on {where}")
                step = "its outputs"
                yield from _outputs(step, device, network, handle)
    except HwnasError as error:
        yield Finding(step, error.cause, error.fix)


def _outputs(step: str, device: Device, network: Network, handle: Handle) -> Iterator[Finding]:
    """Compare with ONNX Runtime in fp32, on a device that gives outputs."""
    import numpy as np
    import onnxruntime as ort

    if not device.gives_outputs or network.calibration is None:
        return
    image = network.calibration[: network.batch_size]
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": image})
    ((found,),) = device.outputs(handle, [[image]])
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    text = f"{apart:.2g} of the largest output away from ONNX Runtime's in fp32"
    limit = LARGEST_DIFFERENCE[device.profile.precision]
    yield Finding(step, text, "" if apart <= limit else "upgrade the runtime, or take another device")


def tiny_network() -> Network:
    """A convolution and a ReLU on 16 × 16 pixels, calibrated with noise."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 8, 14, 14])],
        [numpy_helper.from_array(weights, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = bytes(model.SerializeToString())
    images = random.standard_normal((4, 3, 16, 16)).astype(np.float32)
    return Network("tiny", [Part("tiny", onnx=lambda: content)], images)
