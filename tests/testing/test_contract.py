from __future__ import annotations

from hwnas.devices.base import Device
from hwnas.devices.queue import QueueDevice
from hwnas.testing.contract import DeviceContract, QueueDeviceContract
from hwnas.testing.scripted import ScriptedDevice
from hwnas.testing.scripted_queue import ScriptedHub, ScriptedQueueDevice


class TestScriptedContract(DeviceContract):
    def make_device(self) -> Device:
        return ScriptedDevice(refused={"broken"})


class TestModelledContract(DeviceContract):
    def make_device(self) -> Device:
        return ScriptedDevice(refused={"broken"}, kind="modelled")


class TestScriptedQueueContract(QueueDeviceContract):
    hub: ScriptedHub

    def setup_method(self) -> None:
        self.hub = ScriptedHub(looks=2, refused={"broken"})

    def make_device(self) -> QueueDevice:
        return ScriptedQueueDevice(self.hub)

    def sleep(self, seconds: float) -> None:
        """Time does not pass in a script."""
