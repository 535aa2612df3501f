"""The contract that every device class keeps, as tests for pytest.

A package that brings a device class turns them on with a subclass of its own::

    class TestMyDevice(DeviceContract):
        def make_device(self) -> Device:
            return MyDevice(DeviceProfile(name="mine", device="mine", description="my board"))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwnas.devices.base import Device
from hwnas.devices.lock import DeviceLock
from hwnas.errors import DeviceError, NetworkFormError, PreparationError
from hwnas.files import decode, encode
from hwnas.measurement import Conditions, Fingerprint, Measurement, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore

if TYPE_CHECKING:
    from torch import nn

SHORT = Protocol(
    name="short", warmup_s=0.001, min_runs=2, min_s=0.001, repeats=2, max_repeats=2, max_spread=1.0
)


class DeviceContract:
    """Tests of one device class; a subclass gives `make_device`, and may give other networks."""

    def make_device(self) -> Device:
        """A new device object that is not entered; every one stands for the same hardware."""
        raise NotImplementedError

    def make_network(self) -> Network:
        """A network that the device can run."""
        import torch
        from torch import nn

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
        return Network.from_module("small", nn.Sequential(*layers), (1, 3, 16, 16))

    def make_broken_network(self) -> Network:
        """A network named `broken` that the device cannot run, in any form."""
        return Network("broken", [Part("broken", onnx=_unknown_operator, module=_failing_module)])

    def test_fingerprint_is_stable_and_plain(self) -> None:
        with self.make_device() as device:
            first = device.fingerprint()
            assert device.fingerprint() == first
        with self.make_device() as device:
            assert device.fingerprint() == first
        assert decode(Fingerprint, json.loads(json.dumps(encode(first))), "test") == first

    def test_conditions_are_plain(self) -> None:
        with self.make_device() as device:
            conditions = device.conditions()
        plain = json.loads(json.dumps(encode(conditions), allow_nan=False))
        assert decode(Conditions, plain, "test") == conditions

    def test_prepares_samples_and_releases(self) -> None:
        network = self.make_network()
        with self.make_device() as device:
            handle = device.prepare(network)
            assert handle.network_hash == network.hash
            assert all(sample_ms > 0 for sample_ms in device.sample(handle, runs=3, seconds=0))
            device.release(handle)

    def test_takes_at_least_the_runs_and_the_seconds(self) -> None:
        with self.make_device() as device:
            if device.kind != "measured":
                pytest.skip(f"runs and seconds mean nothing to latencies that are {device.kind}")
            handle = device.prepare(self.make_network())
            assert len(device.sample(handle, runs=5, seconds=0)) >= 5
            assert sum(device.sample(handle, runs=1, seconds=0.02)) >= 20

    def test_holds_two_networks_at_once(self) -> None:
        network = self.make_network()
        with self.make_device() as device:
            first, second = device.prepare(network), device.prepare(network)
            device.release(first)
            assert device.sample(second, runs=1, seconds=0)

    def test_refuses_a_broken_network_and_goes_on(self) -> None:
        with self.make_device() as device:
            with pytest.raises((PreparationError, NetworkFormError)) as refusal:
                device.prepare(self.make_broken_network())
            assert refusal.value.cause
            assert refusal.value.fix
            assert device.sample(device.prepare(self.make_network()), runs=1, seconds=0)

    def test_is_refused_before_opening_and_after_closing(self) -> None:
        device, network = self.make_device(), self.make_network()
        with pytest.raises(DeviceError, match="not open"):
            device.prepare(network)
        with device:
            handle = device.prepare(network)
        with pytest.raises(DeviceError, match="not open"):
            device.sample(handle, runs=1, seconds=0)

    def test_refuses_a_released_handle(self) -> None:
        with self.make_device() as device:
            handle = device.prepare(self.make_network())
            device.release(handle)
            device.release(handle)
            with pytest.raises(DeviceError, match="released"):
                device.sample(handle, runs=1, seconds=0)

    def test_is_locked_while_open(self) -> None:
        with self.make_device() as device:
            if device.lock_name is None:
                pytest.skip("a device without hardware needs no lock")
            lock = DeviceLock(device.lock_name)
            with pytest.raises(DeviceError, match="in use"):
                lock.acquire(timeout_s=0)
        lock.acquire(timeout_s=0)
        lock.release()

    def test_is_released_after_an_exception(self) -> None:
        device = self.make_device()
        with pytest.raises(KeyboardInterrupt), device:
            device.prepare(self.make_network())
            raise KeyboardInterrupt
        with device:
            assert device.sample(device.prepare(self.make_network()), runs=1, seconds=0)

    def test_a_session_measures_and_remembers(self, tmp_path: Path) -> None:
        network, broken = self.make_network(), self.make_broken_network()
        with MeasurementStore(tmp_path / "measurements.db") as store:
            with Session(self.make_device(), SHORT, store, anchor=network) as session:
                first = dict(session.measure([network, broken]))
            with Session(self.make_device(), SHORT, store, anchor=network) as session:
                assert dict(session.measure([network, broken])) == first
        measurement = first[network.hash]
        assert isinstance(measurement, Measurement), measurement
        assert measurement.anchor_ratio > 0
        plain = json.loads(json.dumps(measurement.to_json(), allow_nan=False))
        assert Measurement.from_json(plain, "test") == measurement
        assert not isinstance(first[broken.hash], Measurement)


def _unknown_operator() -> bytes:
    from onnx import TensorProto, helper

    shape = [1, 3, 16, 16]
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["input"], ["output"])],
        "broken",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _failing_module() -> nn.Module:
    raise NetworkFormError("the broken network cannot be made", "it is meant to fail")
