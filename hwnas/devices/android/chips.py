"""Which phone it is, and what its chip cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hwnas.devices.android.settings import Settings
from hwnas.errors import DeviceError

FIRST_HTP = 68  # the first Hexagon with the tensor processor that QNN's HTP backend drives
FIRST_FIXED_PERFORMANCE_SDK = 30  # Android 11


@dataclass(frozen=True)
class Chip:
    """A Qualcomm chip: names, Hexagon version, and the number by which QNN knows it (0: not known)."""

    model: str
    name: str
    hexagon: int
    qnn_id: int = 0


CHIPS = (
    Chip("SM8150", "Snapdragon 855", 66),
    Chip("SM8250", "Snapdragon 865", 66),
    Chip("SM7250", "Snapdragon 765G", 66),
    Chip("SM8350", "Snapdragon 888", 68, 30),
    Chip("SM8450", "Snapdragon 8 Gen 1", 69, 36),
    Chip("SM8475", "Snapdragon 8+ Gen 1", 69, 42),
    Chip("SM8550", "Snapdragon 8 Gen 2", 73, 43),
    Chip("SM8650", "Snapdragon 8 Gen 3", 75, 57),
    Chip("SM8750", "Snapdragon 8 Elite", 79, 69),
    Chip("SM8850", "Snapdragon 8 Elite Gen 5", 81, 87),
)
PLATFORMS = {
    "msmnile": "SM8150",
    "kona": "SM8250",
    "lito": "SM7250",
    "lahaina": "SM8350",
    "taro": "SM8450",
    "kalama": "SM8550",
    "pineapple": "SM8650",
    "sun": "SM8750",
    "canoe": "SM8850",
}
"""`ro.board.platform` → the chip where `ro.soc.model` is missing (before Android 12)."""

OTHERS = {"exynos": "Exynos", "s5e": "Exynos", "universal": "Exynos", "gs": "Tensor", "zuma": "Tensor"}
OTHERS |= {"mt": "MediaTek", "kirin": "Kirin"}
"""How platforms begin that are not Qualcomm's."""


@dataclass(frozen=True)
class Phone:
    """What a phone says about itself."""

    properties: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.properties.get(key, "")

    @property
    def model(self) -> str:
        """`SM-G981U`."""
        return self["ro.product.model"] or "unknown model"

    @property
    def sdk(self) -> int:
        """Android's API level; 0 where it does not say."""
        return int(self["ro.build.version.sdk"]) if self["ro.build.version.sdk"].isdecimal() else 0

    @property
    def chip(self) -> Chip | None:
        """Its Qualcomm chip, where we know it."""
        soc = self["ro.soc.model"].upper()
        model = soc if any(chip.model == soc for chip in CHIPS) else PLATFORMS.get(self["ro.board.platform"])
        return next((chip for chip in CHIPS if chip.model == model), None)

    @property
    def chip_name(self) -> str:
        """For people and for the fingerprint."""
        platform = self["ro.board.platform"] or "unknown platform"
        soc = self["ro.soc.model"]
        if self.chip is not None:
            return f"{self.chip.name} ({self.chip.model})"
        vendor = next((name for start, name in OTHERS.items() if platform.lower().startswith(start)), "")
        return " ".join(part for part in (vendor, soc, f"({platform})") if part)


def check_phone(phone: Phone, profile: str, settings: Settings, power_mode: str) -> None:
    """Refuse what a phone cannot do, before anything is copied to it.

    Raises:
        DeviceError: with the reason, and what to use instead.
    """
    name = f"{phone.model} with {phone.chip_name}"
    platform = phone["ro.board.platform"]
    if settings.provider == "qnn" and phone.chip is None:
        raise DeviceError(
            f"{name} has no QNN: it drives Qualcomm's chips that hwnas knows, from Snapdragon 855 on",
            "--device android-cpu runs on any phone; several phones are sold with Exynos under one name",
        )
    chip = phone.chip
    if settings.provider == "qnn" and settings.backend == "htp" and chip and chip.hexagon < FIRST_HTP:
        raise DeviceError(
            f"{name} has Hexagon V{chip.hexagon}; QNN's HTP begins with V{FIRST_HTP} (Snapdragon 888)",
            "take a profile with the GPU, such as s20-gpu or s10-gpu, or android-cpu",
        )
    if settings.models and not any(fnmatchcase(phone.model, model) for model in settings.models):
        raise DeviceError(
            f"profile {profile} is for {', '.join(settings.models)}, the phone is {name}",
            "--device android-cpu runs on any phone; `hwnas devices` lists other profiles",
        )
    if settings.platforms and platform not in settings.platforms:
        raise DeviceError(
            f"profile {profile} is for {', '.join(settings.platforms)}, the phone is {name} ({platform})",
            "--device android-cpu runs on any phone; `hwnas devices` lists other profiles",
        )
    if settings.provider == "nnapi" and 0 < phone.sdk < 27:
        raise DeviceError(f"{name} has no NNAPI: it begins with Android 8.1", "--device android-cpu")
    if power_mode == "fixed-performance" and phone.sdk < FIRST_FIXED_PERFORMANCE_SDK:
        raise DeviceError(
            f"{name} runs Android {phone['ro.build.version.release'] or 'of unknown version'}; "
            "its fixed-performance mode begins with Android 11",
            'set power_mode = "default" in a copy of the profile',
        )
    if power_mode not in ("default", "fixed-performance"):
        raise DeviceError(
            f"profile {profile}: a phone has no power mode {power_mode!r}",
            "take default or fixed-performance",
        )
