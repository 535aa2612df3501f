"""`hwnas devices setup` from a Maven repository on the loopback interface; `doctor` on an adb daemon."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_phone import RUNNER_SOURCES, FakePhone
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.devices.android import setup
from hwnas.devices.android.libraries import runtime_folder, sources
from hwnas.errors import DeviceError, HwnasError, InputError
from hwnas.files import hwnas_cache, write_toml
from hwnas.measurement import DeviceProfile


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in names:
            bundle.writestr(name, f"content of {name}")
    return buffer.getvalue()


SOUND = archive("jni/arm64-v8a/libonnxruntime.so")


@pytest.fixture
def maven() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A repository: its address, and its files by path."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.removeprefix("/maven2/"))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/maven2", files
        server.shutdown()


Publish = Callable[[str, bytes], str]


@pytest.fixture
def publish(maven: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put an archive of ours into the repository in the place of one that `setup` names; its path."""

    def put(constant: str, content: bytes) -> str:
        pinned = replace(getattr(setup, constant), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(setup, constant, pinned)
        maven[1][pinned.path] = content
        return str(pinned.path)

    return put


def test_archives_are_pinned() -> None:
    assert setup.ONNXRUNTIME.path == (
        "com/microsoft/onnxruntime/onnxruntime-android/1.27.0/onnxruntime-android-1.27.0.aar"
    )
    for archive in (*setup.archives_for("cpu"), *setup.archives_for("qnn")):
        assert re.fullmatch("[0-9a-f]{64}", archive.sha256)


def test_archives_are_compared_and_unpacked(maven: tuple[str, dict[str, bytes]], publish: Publish) -> None:
    address, files = maven
    libraries = ("jni/arm64-v8a/libonnxruntime.so", "jni/x86_64/libother.so", "headers/onnxruntime_c_api.h")
    publish("ONNXRUNTIME", archive(*libraries, "jni/arm64-v8a/../../../escape.so"))
    said: list[str] = []
    folder = setup.fetch_libraries("cpu", address, said.append)
    assert folder == runtime_folder("cpu")
    assert sorted(path.name for path in folder.iterdir()) == ["libonnxruntime.so", "onnxruntime_c_api.h"]
    assert not list(hwnas_cache().parent.rglob("escape.so"))
    files.clear()
    assert setup.fetch_libraries("cpu", address, said.append) == folder


def test_qnn_brings_qualcomm_s_libraries(maven: tuple[str, dict[str, bytes]], publish: Publish) -> None:
    publish("ONNXRUNTIME_QNN", archive("jni/arm64-v8a/libonnxruntime.so"))
    publish("QNN", archive("jni/arm64-v8a/libQnnGpu.so", "jni/arm64-v8a/libQnnHtp.so"))
    folder = setup.fetch_libraries("qnn", maven[0], lambda text: None)
    assert {path.name for path in folder.iterdir()} == {"libonnxruntime.so", "libQnnGpu.so", "libQnnHtp.so"}


@pytest.mark.parametrize(
    ("content", "change", "reason"),
    [
        (SOUND, lambda files, path: files.pop(path), "the server answers 404"),
        (SOUND, lambda files, path: files.update({path: SOUND + b" "}), "is not the published file"),
        (b"no archive", lambda files, path: None, "is no archive"),
        (archive("jni/x86/libonnxruntime.so"), lambda files, path: None, "no libraries for arm64"),
    ],
)
def test_what_is_not_right_is_refused_and_leaves_nothing(
    maven: tuple[str, dict[str, bytes]],
    publish: Publish,
    content: bytes,
    change: Callable[[dict[str, bytes], str], object],
    reason: str,
) -> None:
    address, files = maven
    change(files, publish("ONNXRUNTIME", content))
    with pytest.raises(HwnasError, match=reason) as refusal:
        setup.fetch_libraries("cpu", address, lambda text: None)
    assert "--runtime-dir FOLDER" in refusal.value.fix
    assert not list((hwnas_cache() / "android").iterdir())


def test_a_cache_that_cannot_be_made(
    maven: tuple[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match=r"cannot store libraries in .*: Not a directory") as refusal:
        setup.fetch_libraries("cpu", maven[0], lambda text: None)
    assert "HWNAS_CACHE=FOLDER" in refusal.value.fix


def test_a_repository_must_be_https() -> None:
    with pytest.raises(InputError, match="is not https"):
        setup.fetch_libraries("cpu", "http://example.invalid/maven2", lambda text: None)


def test_without_an_ndk_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    with pytest.raises(DeviceError, match="NDK") as refusal:
        setup.build_runner("", lambda text: None)
    assert "--ndk" in refusal.value.fix


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")
def test_cmake_builds_the_runner(tmp_path: Path) -> None:
    """As for phones, but with this machine's compiler in the place of the NDK's."""
    toolchain = tmp_path / "ndk/build/cmake/android.toolchain.cmake"
    toolchain.parent.mkdir(parents=True)
    toolchain.touch()
    runner = setup.build_runner(str(tmp_path / "ndk"), lambda text: None)
    told = subprocess.run([runner], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (2, "usage: hwnas-runner LIBONNXRUNTIME < JOBS\n")


def test_the_package_brings_the_runner_s_sources() -> None:
    assert sources() == RUNNER_SOURCES
    names = {path.name for path in sources().iterdir()}
    assert {"CMakeLists.txt", "runner.c", "graph.c", "ort.h"} <= names


@pytest.fixture
def profile_file(make_profile: Callable[..., DeviceProfile], tmp_path: Path) -> Callable[..., str]:
    def write(**settings: object) -> str:
        profile = make_profile(**settings)
        path = tmp_path / "mine.toml"
        values = {
            "name": "mine",
            "device": "android",
            "description": "mine",
            "options": dict(profile.options),
        }
        write_toml(path, values)
        return str(path)

    return write


def test_the_doctor_finds_a_sound_phone(phone: FakePhone, profile_file: Callable[..., str]) -> None:
    told = CliRunner().invoke(app, ["devices", "doctor", profile_file()])
    assert told.exit_code == 0, told.output
    steps = [line.split(":")[0] for line in told.output.splitlines()]
    assert steps == [
        f"good   {step}"
        for step in (
            "cable and authorisation",
            "chip",
            "runtime libraries",
            "runner",
            "thermal state",
            "provider and a tiny network",
        )
    ]
    assert "SM-G981U, Snapdragon 865 (SM8250), Android 13" in told.output
    assert "ms on CPUExecutionProvider" in told.output


def test_the_doctor_names_each_thing_that_is_wrong(
    phone: FakePhone, profile_file: Callable[..., str], tmp_path: Path
) -> None:
    def last_of(**options: object) -> dict[str, str]:
        told = CliRunner().invoke(app, ["devices", "doctor", profile_file(**options), "--json"])
        assert told.exit_code == 2, told.output
        findings = json.loads(told.stdout)
        assert findings[-1]["fix"]
        return dict(findings[-1])

    absent = last_of(target="NOSUCHPHONE")
    assert (absent["step"], absent["text"]) == ("cable and authorisation", "phone NOSUCHPHONE is absent")
    assert last_of(platforms="kalama")["step"] == "chip"
    assert "has no libonnxruntime.so" in last_of(runtime_dir=str(tmp_path))["text"]
    assert last_of(runner=str(tmp_path / "none"))["step"] == "runner"
    wrong = tmp_path / "libonnxruntime.so"
    wrong.write_bytes(b"not a library")
    last = last_of(runtime_dir=str(tmp_path))
    assert last["step"] == "provider and a tiny network"
    assert "does not start" in last["text"]


def test_setup_copies_a_folder_of_libraries_to_the_phone(
    phone: FakePhone, built: dict[str, str], profile_file: Callable[..., str]
) -> None:
    given = ["--runtime-dir", built["runtime_dir"]]
    told = CliRunner().invoke(app, ["devices", "setup", profile_file(runtime_dir=""), *given])
    assert told.exit_code == 0, told.output
    assert "has everything" in told.stderr
    assert (runtime_folder("cpu") / "libonnxruntime.so").is_file()
    assert list((phone.storage / "hwnas").glob("lib-*/libonnxruntime.so"))


def test_other_devices_need_no_setup() -> None:
    told = CliRunner().invoke(app, ["devices", "setup", "cpu"])
    assert told.exit_code == 2
    assert "cpu is no phone" in told.stderr
