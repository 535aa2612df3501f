from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from hwnas.devices import registry
from hwnas.devices.host.device import HostDevice
from hwnas.errors import DeviceError


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our device class beside plugins that cannot be used."""
    values = {
        "host": "hwnas.devices.host.device:HostDevice",
        "absent": "no_such_package.device:Device",
        "typo": "hwnas.devices.host.device:NoSuchDevice",
        "other": "hwnas.errors:HwnasError",
    }
    entries = EntryPoints(EntryPoint(name, value, "hwnas.devices") for name, value in values.items())
    monkeypatch.setattr("hwnas.plugins.entry_points", lambda group: entries.select(group=group))


def test_our_devices_are_installed() -> None:
    assert registry.device_class("host") is HostDevice
    assert registry.broken_devices() == {}


@pytest.mark.usefixtures("plugins")
def test_a_broken_plugin_hides_nothing() -> None:
    assert registry.device_names() == ["absent", "host", "other", "typo"]
    assert registry.device_class("host") is HostDevice


@pytest.mark.usefixtures("plugins")
def test_broken_plugins_are_told_with_their_cure() -> None:
    broken = registry.broken_devices()
    assert list(broken) == ["absent", "other", "typo"]
    assert "No module named 'no_such_package'" in broken["absent"]
    assert "pip install --upgrade no_such_package" in broken["absent"]
    assert "is not a device class" in broken["other"]


@pytest.mark.usefixtures("plugins")
def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DeviceError, match="no device class 'hots'; known are absent, host"):
        registry.device_class("hots")
