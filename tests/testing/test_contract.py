from __future__ import annotations

from hwnas.devices.base import Device
from hwnas.testing.contract import DeviceContract
from hwnas.testing.scripted import ScriptedDevice


class TestScriptedContract(DeviceContract):
    def make_device(self) -> Device:
        return ScriptedDevice(refused={"broken"})


class TestModelledContract(DeviceContract):
    def make_device(self) -> Device:
        return ScriptedDevice(refused={"broken"}, kind="modelled")
