"""What must be copied to a phone, and where it lies on this computer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.devices.android.chips import Phone
from hwnas.devices.android.settings import PERF_TEST, Settings, local_path
from hwnas.errors import DeviceError, InputError
from hwnas.files import hwnas_cache, read_bytes, sha256, sha256_of_plain

ABI = "arm64-v8a"
RUNNER_NAME = "hwnas-runner"
ALONGSIDE = ("libc++_shared.so",)
"""Copied where they are: some builds of the libraries need them."""

VERSION = "1.27.0"
"""Of ONNX Runtime for Android; any from 1.24 on tells where nodes ran."""


def runtime_folder(provider: str) -> Path:
    """Where `hwnas devices setup` puts the libraries for a provider."""
    return hwnas_cache() / "android" / f"onnxruntime-{'qnn-' if provider == 'qnn' else ''}{VERSION}"


def runner_path() -> Path:
    """Where `hwnas devices setup` puts the runner."""
    return hwnas_cache() / "android" / ABI / RUNNER_NAME


def library_names(settings: Settings, hexagon: int) -> list[str]:
    """The libraries that a profile needs on a phone with this Hexagon version (0: none).

    What is given as a whole path is on the phone already.
    """
    names = ["libonnxruntime.so"]
    if settings.plugin and not settings.plugin.startswith("/"):
        names.append(settings.plugin)
    if settings.provider_options.get("backend_path", "").startswith("/"):
        return names
    if settings.backend == "htp":
        names += ["libQnnHtp.so", "libQnnSystem.so", "libQnnHtpPrepare.so"]
        names += [f"libQnnHtpV{hexagon}{part}.so" for part in ("Stub", "Skel")]
    elif settings.backend == "gpu":
        names += ["libQnnGpu.so"]
    elif settings.backend == "dsp":
        names += ["libQnnDsp.so", *(f"libQnnDspV{hexagon}{part}.so" for part in ("Stub", "Skel"))]
    return names


def find_libraries(settings: Settings, phone: Phone) -> list[Path]:
    """The files of the libraries that a profile needs.

    Raises:
        DeviceError: one is missing; with the command that brings it.
    """
    folder = local_path(settings.runtime_dir) if settings.runtime_dir else runtime_folder(settings.provider)
    names = library_names(settings, phone.chip.hexagon if phone.chip else 0)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DeviceError(
            f"{folder} has no {', '.join(missing)}",
            "hwnas devices setup NAME brings the libraries; --device-option runtime_dir=FOLDER takes your own"
            + (" (libQnnDsp*.so are in Qualcomm's SDK only)" if settings.backend == "dsp" else ""),
        )
    return [folder / name for name in [*names, *ALONGSIDE] if (folder / name).is_file()]


def find_runner(settings: Settings, phone: Phone) -> Path:
    """The runner's program.

    Raises:
        DeviceError: it is not built, or the phone is no 64-bit ARM.
    """
    if settings.runner:
        path = local_path(settings.runner)
    else:
        path = runner_path()
        if phone["ro.product.cpu.abi"] not in (ABI, ""):
            raise DeviceError(
                f"the phone is {phone['ro.product.cpu.abi']}; the libraries are for {ABI}",
                "set `runner` and `runtime_dir` in a copy of the profile to builds for it",
            )
    if not path.is_file():
        raise DeviceError(
            f"there is no runner for phones at {path}",
            "hwnas devices setup NAME builds it with the NDK in $ANDROID_NDK_HOME; see docs/android.md",
        )
    return path


def programs(libraries: Sequence[Path], runner: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """The files of the libraries and of the runner, with their SHA-256.

    `onnxruntime_perf_test` goes with the libraries: the runner is then a script that calls it.
    """
    if runner.name == PERF_TEST:
        return file_hashes([*libraries, runner]), file_hashes([sources() / "perf_test.sh"])
    return file_hashes(libraries), file_hashes([runner])


def sources() -> Path:
    """The runner's sources, and the script."""
    return Path(__file__).parent / "runner"


def file_hashes(files: Sequence[Path]) -> dict[Path, str]:
    """The SHA-256 of each file. Raises DeviceError where one cannot be read."""
    try:
        return {path: sha256(read_bytes(path)) for path in files}
    except InputError as error:
        raise DeviceError(error.cause, error.fix) from None


def set_hash(files: Mapping[Path, str]) -> str:
    """Sixteen hexadecimal digits that stand for a set of files with these hashes."""
    return sha256_of_plain({path.name: digest for path, digest in files.items()})[:16]
