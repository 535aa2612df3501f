"""The contract on a real phone: `HWNAS_PHONE=s20-gpu pytest -m hardware tests/hardware/test_phone.py -s`."""

from __future__ import annotations

import os

import pytest

from hwnas.devices.android.device import AndroidDevice
from hwnas.devices.android.doctor import examine
from hwnas.devices.doctor import tiny_network
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile
from hwnas.testing.contract import DeviceContract

PROFILE = os.environ.get("HWNAS_PHONE", "")

pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(
        not PROFILE, reason="set HWNAS_PHONE to a profile, such as s20-gpu or android-cpu:SERIAL"
    ),
]


class TestPhoneContract(DeviceContract):
    def make_device(self) -> AndroidDevice:
        return AndroidDevice(load_profile(PROFILE))

    def make_network(self) -> Network:
        return tiny_network()


def test_the_doctor_finds_nothing() -> None:
    findings = list(examine(load_profile(PROFILE)))
    for finding in findings:
        print(finding)
    assert not [finding for finding in findings if finding.fix]
