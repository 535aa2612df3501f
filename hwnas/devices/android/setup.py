"""Bringing what phones need: ONNX Runtime's and QNN's archives from Maven, the runner by the NDK.

Every archive is compared with the checksum that the repository publishes beside it, with ours where we know
it, and with the one of its first download on this computer.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hwnas.devices.android.libraries import ABI, RUNNER_NAME, VERSION, runner_path, runtime_folder
from hwnas.errors import DeviceError, InputError
from hwnas.files import LEFTOVER, hwnas_cache, read_json, write_json

REPOSITORY = "https://repo1.maven.org/maven2"
QNN = ("com.qualcomm.qti", "qnn-runtime")
TIMEOUT_S = 60
MOST_BYTES = 2 * 1024**3
ANDROID_PLATFORM = 29
CHUNK = 1 << 20

Say = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """An artifact of a Maven repository.

    Attributes:
        sha256: of the `.aar`, where we know it; otherwise the repository's own and the first download's hold.
    """

    group: str
    name: str
    version: str
    sha256: str = ""

    def path(self, suffix: str) -> str:
        """Its place in a repository."""
        file = f"{self.name}-{self.version}.{suffix}"
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{file}"


def archive_for(provider: str) -> Archive:
    """ONNX Runtime for a provider; the one with QNN names Qualcomm's libraries that belong to it."""
    name = "onnxruntime-android-qnn" if provider == "qnn" else "onnxruntime-android"
    return Archive("com.microsoft.onnxruntime", name, VERSION)


def fetch_libraries(provider: str, repository: str, say: Say) -> Path:
    """Download and unpack the libraries for a provider; the folder that holds them.

    Raises:
        DeviceError: the repository cannot be reached, or an archive is not what it should be.
    """
    folder = runtime_folder(provider)
    if folder.is_dir():
        say(f"libraries: {folder} is there")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    archives = [archive_for(provider)]
    if provider == "qnn":
        archives.append(_qnn_of(archives[0], repository))
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=LEFTOVER, dir=folder.parent) as name:
        part = Path(name) / "libraries"
        part.mkdir()
        for archive in archives:
            file = Path(name) / "archive"
            digest = _download(archive, repository, file, say)
            count = _unpack(file, part, archive)
            say(f"{archive.name} {archive.version}: {count} libraries, SHA-256 {digest}")
        part.replace(folder)
    return folder


def adopt_libraries(provider: str, source: Path, say: Say) -> Path:
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
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=LEFTOVER, dir=folder.parent) as name:
        part = Path(name) / "libraries"
        part.mkdir()
        for path in libraries:
            shutil.copy2(path, part / path.name)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    say(f"libraries: {len(libraries)} from {source}")
    return folder


def build_runner(ndk: str, say: Say) -> Path:
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
            say(f"runner: {runner} is there")
            return runner
        lacks = "cmake" if toolchain.is_file() else "Android's NDK (r25 or later)"
        raise DeviceError(
            f"the runner for phones is not built, and {lacks} is not found",
            "unpack the NDK, then hwnas devices setup NAME --ndk FOLDER, or set ANDROID_NDK_HOME",
        )
    with tempfile.TemporaryDirectory(prefix="hwnas-") as build:
        _cmake(
            "-S", str(sources()), "-B", build, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DANDROID_ABI={ABI}",
            f"-DANDROID_PLATFORM=android-{ANDROID_PLATFORM}", "-DCMAKE_BUILD_TYPE=Release",
        )  # fmt: skip
        _cmake("--build", build)
        runner.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(build, RUNNER_NAME), runner)
    say(f"runner: {runner}")
    return runner


def sources() -> Path:
    """The runner's C files."""
    return Path(__file__).parent / "runner"


def _cmake(*arguments: str) -> None:
    done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DeviceError(
            f"the runner cannot be built: {lines[-1] if lines else 'cmake failed'}", "see docs/android.md"
        )


def _qnn_of(archive: Archive, repository: str) -> Archive:
    """Qualcomm's runtime in the version that an ONNX Runtime was built with, as its POM says."""
    pom = _read(f"{repository}/{archive.path('pom')}").decode(errors="replace")
    group, name = QNN
    found = re.search(
        rf"<groupId>{re.escape(group)}</groupId>\s*<artifactId>{name}</artifactId>\s*"
        r"<version>([0-9][0-9A-Za-z.-]*)</version>",
        pom,
    )
    if found is not None:
        return Archive(group, name, found[1])
    raise DeviceError(f"the POM of {archive.name} {archive.version} names no {QNN[1]}", _OTHERWISE)


_OTHERWISE = "give a folder with the libraries: --runtime-dir FOLDER"


def _download(archive: Archive, repository: str, file: Path, say: Say) -> str:
    """Fetch an archive and compare its checksums; its SHA-256."""
    url = f"{repository}/{archive.path('aar')}"
    say(f"downloading {url}")
    digests = {"sha256": hashlib.sha256(), "sha1": hashlib.sha1(usedforsecurity=False)}
    try:
        with _open(url) as answer, file.open("wb") as out:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                for digest in digests.values():
                    digest.update(chunk)
    except (OSError, urllib.error.URLError) as error:
        raise _unreachable(url, error) from None
    kind, published = _published(url)
    found = digests["sha256"].hexdigest()
    record = hwnas_cache() / "android" / "checksums.json"
    known = dict(read_json(record)) if record.is_file() else {}
    key = f"{archive.group}:{archive.name}:{archive.version}"
    expected = {"the repository": published if kind == "sha256" else "", "hwnas": archive.sha256}
    expected["the first download on this computer"] = known.get(key, "")
    wrong = [who for who, digest in expected.items() if digest and digest != found]
    if kind == "sha1" and digests["sha1"].hexdigest() != published:
        wrong.append("the repository")
    if wrong:
        raise DeviceError(
            f"{url} is not what {' and '.join(wrong)} say: its SHA-256 is {found}",
            "give the command again; if that stays, the repository or the way to it is not to be trusted",
        )
    if not archive.sha256:
        say(f"{archive.name}: no checksum is known of it: compared with the repository's {kind}, remembered")
    write_json(record, {**known, key: found})
    return found


def _published(url: str) -> tuple[str, str]:
    """The checksum that stands beside an archive: the best kind that there is."""
    for kind, digits in (("sha256", 64), ("sha1", 40)):
        try:
            text = _read(f"{url}.{kind}").decode(errors="replace").split()
        except DeviceError:
            continue
        if text and re.fullmatch(f"[0-9a-f]{{{digits}}}", text[0].lower()):
            return kind, text[0].lower()
    raise DeviceError(f"the repository publishes no checksum of {url}", _OTHERWISE)


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


def _read(url: str) -> bytes:
    try:
        with _open(url) as answer:
            return bytes(answer.read(MOST_BYTES))
    except (OSError, urllib.error.URLError) as error:
        raise _unreachable(url, error) from None


def _open(url: str):  # type: ignore[no-untyped-def]  # urllib's own type of an answer is private
    parts = urlsplit(url)
    if parts.scheme != "https" and not (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")
    ):
        raise InputError(f"{url} is not https", "give a repository with https")
    return urllib.request.urlopen(url, timeout=TIMEOUT_S)  # noqa: S310 - the scheme was checked


def _unreachable(url: str, error: Exception) -> DeviceError:
    return DeviceError(
        f"{url} cannot be fetched: {error}",
        "try again later, name a mirror with --repository URL, or give a folder: --runtime-dir FOLDER",
    )
