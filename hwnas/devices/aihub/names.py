"""Names of the devices at Qualcomm AI Hub, and which of them come nearest to one that is not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.errors import DeviceError

if TYPE_CHECKING:
    import qai_hub as hub

NEAREST = 5

# Snapdragon chipsets of phones, the oldest first: their distance in this list is how far apart two are.
GENERATIONS = (
    "820", "835", "845", "855", "855+", "865", "865+", "870", "888", "888+",
    "8gen1", "8+gen1", "8gen2", "8gen3", "8-elite", "8-elite-gen5",
)  # fmt: skip

# Phones that people ask for and the hub may lack; names in lower case, those of a family by its start.
KNOWN_PHONES = {
    "samsung galaxy s8": "835",
    "samsung galaxy s9": "845",
    "samsung galaxy s10": "855",
    "samsung galaxy note 10": "855",
    "samsung galaxy s20": "865",
    "samsung galaxy note 20": "865+",
    "samsung galaxy s21": "888",
    "samsung galaxy s22": "8gen1",
    "samsung galaxy s23": "8gen2",
    "samsung galaxy s24": "8gen3",
    "samsung galaxy s25": "8-elite",
    "samsung galaxy s26": "8-elite-gen5",
    "google pixel 2": "835",
    "google pixel 3": "845",
    "google pixel 4": "855",
    "oneplus 7": "855",
    "oneplus 8": "865",
    "oneplus 9": "888",
    "xiaomi mi 9": "855",
    "xiaomi mi 10": "865",
}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A kind of device at the hub: many of them may stand there."""

    name: str
    os: str
    attributes: tuple[str, ...]

    @property
    def chipset(self) -> str:
        """`qualcomm-snapdragon-8gen3`; empty where the hub does not tell."""
        return self._attribute("chipset")

    @property
    def system(self) -> str:
        """`android`, `linux`, `windows`; empty where the hub does not tell."""
        return self._attribute("os")

    def hub_device(self) -> hub.Device:
        """The device as the client takes it, its OS version pinned."""
        import qai_hub as hub

        return hub.Device(name=self.name, os=self.os)

    def _attribute(self, kind: str) -> str:
        values = (text.removeprefix(f"{kind}:") for text in self.attributes if text.startswith(f"{kind}:"))
        return next(values, "")


def find_unit(client: hub.Client, name: str) -> Unit:
    """The device of a name, upper and lower case alike, with its newest OS version.

    Raises:
        DeviceError: there is none; the nearest by chipset are listed.
    """
    units = [
        Unit(name=device.name, os=device.os, attributes=tuple(device.attributes))
        for device in client.get_devices()
    ]
    named = [unit for unit in units if unit.name.lower() == name.strip().lower()]
    if not named:
        near = nearest(name, units)
        listed = ", ".join(f"{unit.name} ({_generation(unit) or unit.chipset})" for unit in near)
        by = "chipset" if _wanted_generation(name, units) else "name"
        raise DeviceError(
            f"AI Hub has no device {name!r}; the nearest by {by} are {listed or 'none'}",
            f"--device 'aihub:{near[0].name if near else 'NAME'}', or another of `qai-hub list-devices`",
        )
    return max(named, key=lambda unit: [int(number) for number in re.findall(r"\d+", unit.os)])


def nearest(name: str, units: Sequence[Unit]) -> list[Unit]:
    """The devices whose chipsets are nearest to the asked one's; by name where its chipset is not known."""
    unique = list({unit.name: unit for unit in units}.values())
    wanted = _wanted_generation(name, unique)
    if wanted is None:
        likeness = {
            unit.name: difflib.SequenceMatcher(None, name.lower(), unit.name.lower()) for unit in unique
        }
        return sorted(unique, key=lambda unit: -likeness[unit.name].ratio())[:NEAREST]
    place = GENERATIONS.index(wanted)
    ranked = [unit for unit in unique if _generation(unit) in GENERATIONS]
    return sorted(ranked, key=lambda unit: abs(GENERATIONS.index(_generation(unit)) - place))[:NEAREST]


def _wanted_generation(name: str, units: Sequence[Unit]) -> str | None:
    """The chipset of a name: of a phone that is known, of a device that is called alike, or typed itself."""
    asked = " ".join(name.lower().split())
    # The longest start first, lest `galaxy s2` be taken for another family.
    for phone in sorted(KNOWN_PHONES, key=len, reverse=True):
        if re.match(rf"{phone}(?!\d)", asked):
            return KNOWN_PHONES[phone]
    typed = asked.removeprefix("qualcomm ").removeprefix("snapdragon ").replace(" gen ", "gen")
    if typed in GENERATIONS:
        return typed
    alike = difflib.get_close_matches(asked, [unit.name.lower() for unit in units], n=1, cutoff=0.8)
    found = next((_generation(unit) for unit in units if unit.name.lower() in alike), "")
    return found if found in GENERATIONS else None


def _generation(unit: Unit) -> str:
    return unit.chipset.removeprefix("qualcomm-snapdragon-")
