"""The device class with the real runner over a real adb daemon."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_phone import FakePhone

from hwnas.devices.android.device import AndroidDevice
from hwnas.testing.contract import DeviceContract


class TestAndroidContract(DeviceContract):
    @pytest.fixture(autouse=True)
    def _phone(self, phone: FakePhone, make_device: Callable[..., AndroidDevice]) -> None:
        self.make = make_device

    def make_device(self) -> AndroidDevice:
        return self.make()
