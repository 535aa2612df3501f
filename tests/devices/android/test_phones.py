"""What a phone is refused for before anything is copied to it, and what a profile means to ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_phone import GALAXY_S20, SERIAL, FakePhone

from hwnas.devices.android.chips import Phone, check_phone
from hwnas.devices.android.device import AndroidDevice
from hwnas.devices.android.libraries import library_names
from hwnas.devices.android.placement import placement_of
from hwnas.devices.android.settings import provider_of, read_settings, session_entries
from hwnas.errors import DeviceError, PreparationError
from hwnas.measurement import DeviceProfile
from hwnas.profiles.catalogue import load_profile, profile_names

PHONES = {
    "S10": {"ro.product.model": "SM-G973U", "ro.board.platform": "msmnile", "ro.build.version.sdk": "31"},
    "S10 Exynos": {"ro.product.model": "SM-G973F", "ro.board.platform": "exynos9820"},
    "S10 old": {"ro.product.model": "SM-G973U", "ro.board.platform": "msmnile", "ro.build.version.sdk": "29"},
    "S20": GALAXY_S20,
    "S21": {"ro.product.model": "SM-G991U", "ro.board.platform": "lahaina", "ro.build.version.sdk": "33"},
    "S23": {"ro.product.model": "SM-S911B", "ro.soc.model": "SM8550", "ro.board.platform": "kalama",
            "ro.build.version.sdk": "34"},
    "Pixel 7": {"ro.product.model": "Pixel 7", "ro.soc.model": "GS201", "ro.board.platform": "gs201",
                "ro.build.version.sdk": "34"},
}  # fmt: skip

REFUSED = [
    ("S10 Exynos", "s10-gpu", "Exynos .* has no QNN", "android-cpu"),
    ("Pixel 7", "s23-htp", "has no QNN", "android-cpu"),
    ("S20", "s23-htp", r"Hexagon V66; QNN's HTP begins with V68", "s20-gpu"),
    ("S10", "s20-gpu", r"is for SM-G98\*, SM-G78\*, the phone is SM-G973U", "android-cpu"),
]


def check(phone: str, profile: DeviceProfile) -> None:
    check_phone(Phone(PHONES[phone]), profile.name, read_settings(profile), profile.power_mode)


@pytest.mark.parametrize(
    ("phone", "name"),
    [("S10", "s10-gpu"), ("S20", "s20-gpu"), ("S21", "s21-htp"), ("S23", "s23-htp"), ("S23", "s23-htp-int8")]
    + [(phone, "android-cpu") for phone in PHONES],
)
def test_the_right_phone_is_taken(phone: str, name: str) -> None:
    check(phone, load_profile(name))


@pytest.mark.parametrize(("phone", "name", "reason", "instead"), REFUSED)
def test_what_a_phone_cannot_do_is_refused(phone: str, name: str, reason: str, instead: str) -> None:
    with pytest.raises(DeviceError, match=reason) as refusal:
        check(phone, load_profile(name))
    assert instead in refusal.value.fix


def test_fixed_performance_mode_needs_android_11() -> None:
    profile = replace(load_profile("s10-gpu"), power_mode="fixed-performance")
    check("S10", profile)
    with pytest.raises(DeviceError, match="begins with Android 11"):
        check("S10 old", profile)
    with pytest.raises(DeviceError, match="no power mode 'turbo'"):
        check("S10", replace(profile, power_mode="turbo"))


def test_a_refusal_leaves_the_phone_untouched(
    phone: FakePhone, make_device: Callable[..., AndroidDevice]
) -> None:
    phone.set_properties(PHONES["S10 Exynos"])
    folder = phone.storage / "untouched"
    with pytest.raises(DeviceError, match="has no QNN"):
        make_device(provider="qnn", backend="gpu", folder=str(folder), precision="fp16").__enter__()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "precision", "reason"),
    [
        ({"provider": "cuda"}, "fp32", "take one of cpu, xnnpack, nnapi, qnn"),
        ({"provider": "qnn"}, "fp16", "backend ''"),
        ({"backend": "htp"}, "fp16", "provider cpu with backend 'htp'"),
        ({"provider": "qnn", "backend": "htp"}, "fp32", "htp has no fp32"),
        ({"provider": "qnn", "backend": "dsp"}, "fp16", "dsp has no fp16"),
        ({"threads": -1}, "fp32", "threads is -1"),
        ({"cooldown_s": float("nan")}, "fp32", "cooldown_s is nan"),
        ({"folder": "tmp"}, "fp32", "folder 'tmp'"),
        ({"folder": "/"}, "fp32", "folder '/'"),
        ({"provider.key": "a\nload\t0"}, "fp32", "tab or a line break"),
        ({"provider.a\tb": "c"}, "fp32", "tab or a line break"),
        ({"seriall": "x"}, "fp32", "no option 'seriall'"),
    ],
)
def test_a_wrong_profile_is_refused_without_a_phone(
    options: dict[str, Any], precision: Any, reason: str
) -> None:
    profile = DeviceProfile(
        name="mine", device="android", description="mine", precision=precision, options=options
    )
    with pytest.raises(DeviceError, match=reason):
        AndroidDevice(profile)


def test_what_onnxruntime_is_told() -> None:
    profile = load_profile("s23-htp")
    options = {**profile.options, "provider.vtcm_mb": 8, "session.inter": True, "allow_fallback": False}
    settings = read_settings(replace(profile, options=options))
    name, given = provider_of(settings, "fp16", 73, 43)
    assert name == "QNN"
    assert given == {
        "backend_path": "libQnnHtp.so",
        "htp_arch": "73",
        "htp_performance_mode": "burst",
        "soc_model": "43",
        "enable_htp_fp16_precision": "1",
        "vtcm_mb": "8",
    }
    entries = session_entries(settings)
    assert entries["session.inter"] == "1"
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    assert {"libQnnHtpV73Skel.so", "libQnnHtpV73Stub.so"} < set(library_names(settings, 73))


def test_a_silent_fallback_is_an_error_unless_it_is_allowed() -> None:
    pairs = [["QNN", "Conv"], ["QNN", "Conv"], ["CPUExecutionProvider", "Resize"]]
    profile = load_profile("s20-gpu")
    with pytest.raises(PreparationError, match="net: Resize would run on the CPU") as refusal:
        placement_of("net", pairs, read_settings(profile))
    assert "allow_fallback=true" in refusal.value.fix
    allowed = read_settings(replace(profile, options={**profile.options, "allow_fallback": True}))
    assert session_entries(allowed)["session.disable_cpu_ep_fallback"] == "0"
    found = placement_of("net", pairs, allowed)
    assert found == {"QNN": {"Conv": 2}, "CPUExecutionProvider": {"Resize": 1}}


@pytest.mark.parametrize("name", [name for name in profile_names() if load_profile(name).device == "android"])
def test_every_phone_s_profile_takes_a_serial_or_an_address(name: str) -> None:
    for target in ("R3CN10ABCDE", SERIAL):
        device = AndroidDevice(load_profile(f"{name}:{target}"))
        assert device.settings.target == target
