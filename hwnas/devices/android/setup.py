"""Bringing what phones need: ONNX Runtime's and QNN's archives from Maven, the runner by the NDK."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hwnas.devices.android.libraries import ABI, RUNNER_NAME, VERSION, runner_path, runtime_folder, sources
from hwnas.download import download
from hwnas.errors import DeviceError, InputError
from hwnas.temporary import folder_beside, temporary_folder

REPOSITORY = "https://repo1.maven.org/maven2"
MOST_BYTES = 2 * 1024**3
ANDROID_PLATFORM = 29
_OTHERWISE = "give a folder with the libraries: --runtime-dir FOLDER"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """An artifact of a Maven repository, pinned by the SHA-256 of its `.aar`."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def path(self) -> str:
        """Its place in a repository."""
        file = f"{self.name}-{self.version}.aar"
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{file}"


ONNXRUNTIME = Archive(
    "com.microsoft.onnxruntime",
    "onnxruntime-android",
    VERSION,
    "077dec5e2d821234c7dc0aba584bec8f999854b546c754cab93a90741c56fbeb",
)
ONNXRUNTIME_QNN = Archive(
    "com.microsoft.onnxruntime",
    "onnxruntime-android-qnn",
    VERSION,
    "d814a4927c78439da4fe599866c980ea853c2d3ecbb7078f897d559d63ccc872",
)
QNN = Archive(  # the version that ONNXRUNTIME_QNN's POM names
    "com.qualcomm.qti",
    "qnn-runtime",
    "2.42.0",
    "ecb69bd6a7b1be4717ef10805199fb49ec6b60ca3f481d3068ed9605fba91d5b",
)


def archives_for(provider: str) -> tuple[Archive, ...]:
    """What an execution provider needs."""
    return (ONNXRUNTIME_QNN, QNN) if provider == "qnn" else (ONNXRUNTIME,)


def fetch_libraries(provider: str, repository: str, log: Log) -> Path:
    """Download and unpack the libraries for a provider; the folder that holds them.

    Raises:
        InputError: the repository cannot be reached, or gives something else than it should.
        DeviceError: an archive holds no libraries for phones, or they cannot be stored.
    """
    folder = runtime_folder(provider)
    if folder.is_dir():
        log(f"libraries: {folder} is there")
        return folder
    _check_secure(repository)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(folder) as name:
            part = name / "libraries"
            part.mkdir()
            for archive in archives_for(provider):
                file, url = name / "archive", f"{repository}/{archive.path}"
                log(f"downloading {url}")
                download(url, archive.sha256, file, f"name a mirror with --repository URL, or {_OTHERWISE}")
                count = _unpack(file, part, archive)
                log(f"{archive.name} {archive.version}: {count} libraries")
            part.replace(folder)
    except OSError as error:
        raise DeviceError(
            f"cannot store libraries in {folder.parent}: {error.strerror}",
            f"free space, name another cache by HWNAS_CACHE=FOLDER, or {_OTHERWISE}",
        ) from None
    return folder


def adopt_libraries(provider: str, source: Path, log: Log) -> Path:
    """Copy the libraries of a folder to where a provider's are looked for; that place.

    Raises:
        DeviceError: the folder has none.
    """
    libraries = sorted(source.glob("*.so"))
    if not any(path.name == "libonnxruntime.so" for path in libraries):
        raise DeviceError(
            f"{source} has no libonnxruntime.so", "give a folder with the libraries for the phone"
        )
    folder = runtime_folder(provider)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(folder) as name:
        part = name / "libraries"
        part.mkdir()
        for path in libraries:
            shutil.copy2(path, part / path.name)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    log(f"libraries: {len(libraries)} from {source}")
    return folder


def build_runner(ndk: str, log: Log) -> Path:
    """Build the runner for phones with Android's NDK and CMake; where it is.

    Args:
        ndk: the NDK's folder; empty takes $ANDROID_NDK_HOME.

    Raises:
        DeviceError: there is no NDK or no CMake, or the build fails.
    """
    runner = runner_path()
    ndk = ndk or os.environ.get("ANDROID_NDK_HOME", "")
    toolchain = Path(ndk, "build/cmake/android.toolchain.cmake")
    if not ndk or not toolchain.is_file() or shutil.which("cmake") is None:
        if runner.is_file():
            log(f"runner: {runner} is there")
            return runner
        lacks = "cmake" if toolchain.is_file() else "Android's NDK (r25 or later)"
        raise DeviceError(
            f"the runner for phones is not built, and {lacks} is not found",
            "unpack the NDK, then hwnas devices setup NAME --ndk FOLDER, or set ANDROID_NDK_HOME",
        )
    with temporary_folder() as build:
        _cmake(
            "-S", str(sources()), "-B", str(build), f"-DCMAKE_TOOLCHAIN_FILE={toolchain}",
            f"-DANDROID_ABI={ABI}", f"-DANDROID_PLATFORM=android-{ANDROID_PLATFORM}",
            "-DCMAKE_BUILD_TYPE=Release",
        )  # fmt: skip
        _cmake("--build", str(build))
        runner.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(build, RUNNER_NAME), runner)
    log(f"runner: {runner}")
    return runner


def _cmake(*arguments: str) -> None:
    done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DeviceError(
            f"the runner cannot be built: {lines[-1] if lines else 'cmake failed'}", "see docs/android.md"
        )


def _unpack(file: Path, folder: Path, archive: Archive) -> int:
    """Put the libraries of an archive into a folder, and its C headers; how many libraries."""
    count = 0
    try:
        with zipfile.ZipFile(file) as bundle:
            if sum(item.file_size for item in bundle.infolist()) > MOST_BYTES:
                raise DeviceError(f"{archive.name} unpacks to more than {MOST_BYTES} bytes", _OTHERWISE)
            for item in bundle.infolist():
                path = Path(item.filename)
                library = str(path.parent) == f"jni/{ABI}" and path.suffix == ".so"
                if library or (str(path.parent) == "headers" and path.suffix == ".h"):
                    count += library
                    with bundle.open(item) as content, (folder / path.name).open("wb") as out:
                        shutil.copyfileobj(content, out)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DeviceError(f"{archive.name} is no archive: {error}", _OTHERWISE) from None
    if count == 0:
        raise DeviceError(f"{archive.name} has no libraries for {ABI}", _OTHERWISE)
    return count


def _check_secure(repository: str) -> None:
    parts = urlsplit(repository)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    if parts.scheme != "https" and not local:
        raise InputError(f"{repository} is not https", "give a repository with https")
