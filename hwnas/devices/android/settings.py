"""The options of a phone's profile, and what they mean to ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from hwnas.devices.options import check_options
from hwnas.errors import DeviceError
from hwnas.measurement import DeviceProfile, Precision

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "htp": ("fp16", "int8"),
    "gpu": ("fp32", "fp16"),
    "dsp": ("int8",),
}
"""What each of QNN's backends computes in; everything else takes all of ONNX's."""

BACKENDS = {"htp": "libQnnHtp.so", "gpu": "libQnnGpu.so", "dsp": "libQnnDsp.so"}
PREFIXES = ("provider.", "session.")
PERF_TEST = "onnxruntime_perf_test"
"""The name of ONNX Runtime's own program, which a script of ours drives in the place of our runner."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A profile's options, checked; see `AndroidDevice` for what they mean."""

    target: str
    models: tuple[str, ...]
    platforms: tuple[str, ...]
    provider: str
    backend: str
    plugin: str
    threads: int
    allow_fallback: bool
    runtime_dir: str
    runner: str
    folder: str
    cache_mb: int
    max_thermal_status: int
    max_battery_c: float
    cooldown_s: float
    reconnect_s: float
    limit_s: float
    provider_options: MappingProxyType[str, str]
    session_entries: MappingProxyType[str, str]

    @property
    def has_cpu_fallback(self) -> bool:
        """Whether nodes that the provider does not take may run on the CPU."""
        return self.provider == "cpu" or self.allow_fallback


def read_settings(profile: DeviceProfile) -> Settings:
    """The settings in a profile.

    Raises:
        DeviceError: an unknown option, one of the wrong type or out of range, or a precision that the
            backend does not have.
    """
    passed = {key: value for key, value in profile.options.items() if key.startswith(PREFIXES)}
    own = {key: value for key, value in profile.options.items() if key not in passed}
    options = check_options(
        replace(profile, options=own),
        "a phone",
        target="",
        models="",
        platforms="",
        provider=("cpu", "xnnpack", "nnapi", "qnn"),
        backend=("", *BACKENDS),
        plugin="",
        threads=0,
        allow_fallback=False,
        runtime_dir="",
        runner="",
        folder="/data/local/tmp/hwnas",
        cache_mb=512,
        max_thermal_status=0,
        max_battery_c=45.0,
        cooldown_s=120.0,
        reconnect_s=30.0,
        limit_s=300.0,
    )
    values = {
        key: _texts(value) if key in ("models", "platforms") else value for key, value in options.items()
    }
    for key in ("threads", "cache_mb", "max_thermal_status", "cooldown_s", "reconnect_s", "limit_s"):
        if not options[key] >= 0:  # type: ignore[operator]  # check_options made it a number; NaN is refused
            raise DeviceError(f"profile {profile.name}: {key} is {options[key]}", f"set {key} to 0 or more")
    settings = Settings(
        **values,  # type: ignore[arg-type]  # check_options gives each the type of its default
        provider_options=MappingProxyType(_passed(passed, "provider.")),
        session_entries=MappingProxyType(_passed(passed, "")),
    )
    _check(profile, settings)
    return settings


def _check(profile: DeviceProfile, settings: Settings) -> None:
    if (settings.provider == "qnn") != bool(settings.backend):
        raise DeviceError(
            f"profile {profile.name}: provider {settings.provider} with backend {settings.backend!r}",
            f'set provider = "qnn" together with a backend of {", ".join(BACKENDS)}',
        )
    known = PRECISIONS.get(settings.backend, ("fp32", "fp16", "int8"))
    if profile.precision not in known:
        raise DeviceError(
            f"profile {profile.name}: {settings.backend or settings.provider} has no {profile.precision}",
            f"take one of {', '.join(known)}",
        )
    if not settings.folder.startswith("/") or settings.folder.count("/") < 2:
        raise DeviceError(
            f"profile {profile.name}: folder {settings.folder!r} is no place for files of our own",
            "take /data/local/tmp/hwnas",
        )
    passed = [*settings.provider_options.items(), *settings.session_entries.items()]
    for text in (settings.folder, settings.plugin, *(text for pair in passed for text in pair)):
        if any(character in text for character in "\t\n\r\0"):
            raise DeviceError(f"profile {profile.name}: {text!r} has a tab or a line break", "remove it")
    if local_path(settings.runner).name == PERF_TEST:
        texts = [text for pair in passed for text in pair]
        if settings.plugin or any(character in text for text in texts for character in " |"):
            raise DeviceError(
                f"profile {profile.name}: {PERF_TEST} takes no plugin, and no option with a space or a |",
                "take hwnas' own runner: remove `runner`",
            )


def session_entries(settings: Settings) -> dict[str, str]:
    """Session config entries of ONNX Runtime: nothing falls back to the CPU in silence."""
    entries = {
        # Threads spin while a network runs, not after it: they would take the cores from the next one.
        "session.force_spinning_stop": "1",
        "session.disable_cpu_ep_fallback": "0" if settings.has_cpu_fallback else "1",
    }
    return {**dict(settings.session_entries), **entries}


def provider_of(
    settings: Settings, precision: Precision, hexagon: int, qnn_id: int
) -> tuple[str, dict[str, str]]:
    """The execution provider's name and options; the CPU has neither."""
    name = {"cpu": "", "xnnpack": "XNNPACK", "nnapi": "NNAPI", "qnn": "QNN"}[settings.provider]
    if settings.plugin:
        name += "ExecutionProvider"
    options = {}
    if settings.provider == "qnn":
        options = {"backend_path": BACKENDS[settings.backend]}
    if settings.backend == "htp":
        options |= {"htp_arch": str(hexagon), "htp_performance_mode": "burst"}
        options |= {"soc_model": str(qnn_id)} if qnn_id else {}
        options |= {"enable_htp_fp16_precision": "1"} if precision == "fp16" else {}
    if settings.provider == "xnnpack" and settings.threads:
        options = {"intra_op_num_threads": str(settings.threads)}
    return name, options | dict(settings.provider_options)


def local_path(text: str) -> Path:
    """A path in a profile, with the user's home folder written as `~`."""
    return Path(text).expanduser()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text.strip() for text in str(value).split(",") if text.strip())


def _passed(options: Mapping[str, object], prefix: str) -> dict[str, str]:
    """Options for ONNX Runtime as texts; a truth value is 0 or 1 there."""
    if not prefix:
        chosen = {key: value for key, value in options.items() if key.startswith("session.")}
    else:
        chosen = {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}
    return {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in chosen.items()}
