"""The contract that every device class keeps, as tests for pytest.

A package that brings a device class turns them on with a subclass of its own::

    class TestMyDevice(DeviceContract):
        def make_device(self) -> Device:
            return MyDevice(DeviceProfile(name="mine", device="mine", description="my board"))

A device with a queue takes `QueueDeviceContract` in the same way.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwnas.devices.base import BaseDevice, Device
from hwnas.devices.doctor import LARGEST_DIFFERENCE
from hwnas.devices.lock import DeviceLock
from hwnas.devices.queue import QueueDevice, QueueJob, QueueResult
from hwnas.errors import DeviceError, NetworkFormError, PreparationError
from hwnas.files import decode, encode
from hwnas.measurement import Conditions, Fingerprint, Measurement, Protocol
from hwnas.network import Network, Part
from hwnas.profiles.queue_outputs import QueueOutputs
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore

if TYPE_CHECKING:
    from torch import nn

SHORT = Protocol(
    name="short", warmup_s=0.001, min_runs=2, min_s=0.001, repeats=2, max_repeats=2, max_spread=1.0
)


class _AnyDeviceContract:
    """What holds for devices that sample and for devices with a queue."""

    def make_device(self) -> BaseDevice:
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

    def sleep(self, seconds: float) -> None:
        """How a session pauses."""
        time.sleep(seconds)

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

    def test_is_locked_while_open(self) -> None:
        with self.make_device() as device:
            if device.lock_name is None:
                pytest.skip("a device without hardware needs no lock")
            lock = DeviceLock(device.lock_name)
            with pytest.raises(DeviceError, match="in use"):
                lock.acquire(timeout_s=0)
        lock.acquire(timeout_s=0)
        lock.release()

    def test_a_session_measures_and_remembers(self, tmp_path: Path) -> None:
        network, broken = self.make_network(), self.make_broken_network()
        with MeasurementStore(tmp_path / "measurements.db") as store:
            with Session(self.make_device(), SHORT, store, anchor=network, sleep=self.sleep) as session:
                first = dict(session.measure([network, broken]))
            with Session(self.make_device(), SHORT, store, anchor=network, sleep=self.sleep) as session:
                assert dict(session.measure([network, broken])) == first
        measurement = first[network.hash]
        assert isinstance(measurement, Measurement), measurement
        assert measurement.anchor_ratio > 0
        plain = json.loads(json.dumps(measurement.to_json(), allow_nan=False))
        assert Measurement.from_json(plain, "test") == measurement
        assert not isinstance(first[broken.hash], Measurement)


class DeviceContract(_AnyDeviceContract):
    """Tests of one device class; a subclass gives `make_device`, and may give other networks."""

    def make_device(self) -> Device:
        """A new device object that is not entered; every one stands for the same hardware."""
        raise NotImplementedError

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

    def test_outputs_are_those_of_the_network_and_disturb_no_timing(self) -> None:
        """As near to torch as the device's precision lets them; a device without outputs says so."""
        import numpy as np
        import torch

        network, generator = self.make_network(), np.random.default_rng(1)
        noise = generator.standard_normal((8, *network.input_shape[1:])).astype(np.float32)
        network = network.calibrated(noise)
        with self.make_device() as device:
            handle = device.prepare(network)
            batch_size = int(handle.metrics.get("batch_size", network.batch_size))
            images = [noise[start : start + batch_size] for start in (0, batch_size)]
            if not device.gives_outputs:
                with pytest.raises(DeviceError, match=device.profile.name) as refusal:
                    device.outputs(handle, [[images[0]]])
                assert refusal.value.fix
                return
            runs = [[image] for image in images]
            found = device.outputs(handle, runs)
            assert device.sample(handle, runs=1, seconds=0)
            again = device.outputs(handle, runs)
            assert len(found) == len(again) == len(runs)
            for image, of_image, of_image_again in zip(images, found, again, strict=True):
                with torch.no_grad():
                    expected = network.module()(torch.from_numpy(image)).numpy()
                apart = np.abs(of_image[0] - expected).max() / np.abs(expected).max()
                assert of_image[0].shape == expected.shape
                assert apart <= LARGEST_DIFFERENCE[device.profile.precision]
                assert all(map(np.array_equal, of_image, of_image_again))
            device.release(handle)
            with pytest.raises(DeviceError, match="released"):
                device.outputs(handle, runs)

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

    def test_is_released_after_an_exception(self) -> None:
        device = self.make_device()
        with pytest.raises(KeyboardInterrupt), device:
            device.prepare(self.make_network())
            raise KeyboardInterrupt
        with device:
            assert device.sample(device.prepare(self.make_network()), runs=1, seconds=0)


class QueueDeviceContract(_AnyDeviceContract):
    """Tests of one device class with a queue; a subclass gives `make_device`, and may give other networks.

    A broken network may be refused when it is submitted or by its failed job.
    """

    def make_device(self) -> QueueDevice:
        """A new device object that is not entered; every one stands for the same queue."""
        raise NotImplementedError

    def make_job(self, network: Network) -> QueueJob:
        """A job that nobody has submitted yet."""
        name = f"hwnas-contract-{secrets.token_hex(8)}"
        created_at = datetime.now(UTC).isoformat(timespec="seconds")
        return QueueJob(name=name, network_hash=network.hash, created_at=created_at)

    def result_of(self, device: QueueDevice, job: QueueJob) -> tuple[QueueJob, QueueResult]:
        """Look at a job until its result is there; the job as it was last, and the result."""
        while True:
            answer = device.collect(job)
            if isinstance(answer, QueueResult):
                return job, answer
            assert (answer.name, answer.network_hash) == (job.name, job.network_hash)
            job = answer
            self.sleep(device.poll_s)

    def test_a_job_gives_latencies_and_can_be_repeated(self) -> None:
        network = self.make_network()
        with self.make_device() as device:
            submitted = device.submit(self.make_job(network), network)
            assert submitted.job_id
            assert submitted.url
            job, result = self.result_of(device, submitted)
            assert all(sample_ms > 0 for sample_ms in result.samples_ms)
            assert job.prepared
            again = device.submit(replace(self.make_job(network), prepared=job.prepared), network)
            assert self.result_of(device, again)[1].samples_ms

    def test_a_job_is_plain_and_goes_on_in_another_process(self) -> None:
        network = self.make_network()
        with self.make_device() as device:
            job = device.submit(self.make_job(network), network)
        plain = json.loads(json.dumps(encode(job), allow_nan=False))
        with self.make_device() as device:
            _, result = self.result_of(device, decode(QueueJob, plain, "test"))
        plain = json.loads(json.dumps(encode(result), allow_nan=False))
        assert decode(QueueResult, plain, "test") == result

    def test_a_job_whose_id_never_arrived_is_found_by_its_name(self) -> None:
        network = self.make_network()
        with self.make_device() as device:
            job = self.make_job(network)
            assert device.find(job) == job
            assert device.submit(job, network).job_id
            found = device.find(job)
            assert found.job_id
            assert self.result_of(device, found)[1].samples_ms

    def test_outputs_are_those_of_the_network(self) -> None:
        """As near to torch as the device's precision lets them; a queue without outputs says so."""
        import numpy as np
        import torch

        network = self.make_network()
        noise = np.random.default_rng(1).standard_normal((2, *network.input_shape)).astype(np.float32)
        network = network.calibrated(noise.reshape(-1, *network.input_shape[1:]))
        runs = [[images] for images in noise]
        with self.make_device() as device:
            if not device.gives_outputs:
                with pytest.raises(DeviceError, match=device.profile.name) as refusal:
                    device.bring(network, runs)
                assert refusal.value.fix
                return
            found = QueueOutputs(device, network, self.sleep)(runs)
        assert len(found) == len(runs)
        for images, outputs in zip(noise, found, strict=True):
            with torch.no_grad():
                expected = network.module()(torch.from_numpy(images)).numpy()
            assert outputs[0].shape == expected.shape
            apart = np.abs(outputs[0] - expected).max() / np.abs(expected).max()
            assert apart <= LARGEST_DIFFERENCE[device.profile.precision]

    def test_a_broken_network_fails_with_a_reason(self) -> None:
        broken, network = self.make_broken_network(), self.make_network()
        with self.make_device() as device:
            with pytest.raises((PreparationError, NetworkFormError)) as refusal:
                self.result_of(device, device.submit(self.make_job(broken), broken))
            assert refusal.value.cause
            assert refusal.value.fix
            assert self.result_of(device, device.submit(self.make_job(network), network))

    def test_is_refused_before_opening_and_after_closing(self) -> None:
        device, network = self.make_device(), self.make_network()
        with pytest.raises(DeviceError, match="not open"):
            device.submit(self.make_job(network), network)
        with device:
            job = device.submit(self.make_job(network), network)
        with pytest.raises(DeviceError, match="not open"):
            device.collect(job)


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
