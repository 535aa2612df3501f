from __future__ import annotations

import pytest

from hwnas.devices import base
from hwnas.devices.lock import DeviceLock
from hwnas.errors import DeviceError, DeviceLostError
from hwnas.network import Network, Part
from hwnas.testing.scripted import ScriptedDevice

NETWORK = Network("a", [Part("a", onnx=lambda: b"a")])


class Impatient(DeviceLock):
    def acquire(self, timeout_s: float = 0.0) -> None:
        super().acquire(timeout_s=0.0)


def assert_free(device: ScriptedDevice) -> None:
    assert device.lock_name is not None
    lock = DeviceLock(device.lock_name)
    lock.acquire(timeout_s=0)
    lock.release()


def test_what_is_still_prepared_is_released_at_the_end() -> None:
    with ScriptedDevice() as device:
        device.prepare(NETWORK)
        device.prepare(NETWORK)
        assert device.held == ["a", "a"]
    assert device.held == []


def test_a_busy_device_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "DeviceLock", Impatient)
    second = ScriptedDevice()
    with ScriptedDevice():
        with pytest.raises(DeviceError, match="in use"):
            second.__enter__()
        with pytest.raises(DeviceError, match="not open"):
            second.prepare(NETWORK)


def test_a_device_that_does_not_open_is_unlocked() -> None:
    class Closed(ScriptedDevice):
        def open_impl(self) -> None:
            raise DeviceError("no such device", "plug it in")

    device = Closed()
    with pytest.raises(DeviceError, match="no such device"), device:
        pass
    assert_free(device)


def test_every_step_of_closing_is_taken_even_when_one_fails() -> None:
    closed = []

    class Gone(ScriptedDevice):
        def release_impl(self, handle: base.Handle) -> None:
            super().release_impl(handle)
            raise DeviceLostError("gone", "look")

        def close_impl(self) -> None:
            closed.append(self)

    device = Gone()
    with pytest.raises(DeviceLostError, match="gone"), device:
        device.prepare(NETWORK)
        device.prepare(NETWORK)
    assert device.held == []
    assert closed == [device]
    assert_free(device)


def test_a_handle_of_another_device_is_refused() -> None:
    with ScriptedDevice() as device:
        stranger = base.Handle(network_hash="a", state="a")
        with pytest.raises(DeviceError, match="another device's"):
            device.sample(stranger, runs=1, seconds=0)
