"""`hwnas devices setup` from a Maven repository on the loopback interface; `doctor` on an adb daemon."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_phone import RUNNER_SOURCES, FakePhone
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.devices.android import setup
from hwnas.devices.android.libraries import VERSION, runtime_folder
from hwnas.errors import DeviceError, HwnasError, InputError
from hwnas.files import hwnas_cache, write_toml
from hwnas.measurement import DeviceProfile

ORT = f"com/microsoft/onnxruntime/onnxruntime-android/{VERSION}/onnxruntime-android-{VERSION}.aar"
ORT_QNN = f"com/microsoft/onnxruntime/onnxruntime-android-qnn/{VERSION}/onnxruntime-android-qnn-{VERSION}"
QNN = "com/qualcomm/qti/qnn-runtime/2.42.0/qnn-runtime-2.42.0.aar"
POM = """<?xml version="1.0"?><project xmlns="http://maven.apache.org/POM/4.0.0"><dependencies><dependency>
<groupId>com.qualcomm.qti</groupId><artifactId>qnn-runtime</artifactId><version>2.42.0</version>
</dependency></dependencies></project>"""


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in names:
            bundle.writestr(name, f"content of {name}")
    return buffer.getvalue()


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


def publish(files: dict[str, bytes], path: str, content: bytes, kind: str = "sha256") -> None:
    files[path] = content
    files[f"{path}.{kind}"] = hashlib.new(kind, content).hexdigest().encode()


def test_archives_are_compared_unpacked_and_remembered(maven: tuple[str, dict[str, bytes]]) -> None:
    address, files = maven
    libraries = ("jni/arm64-v8a/libonnxruntime.so", "jni/x86_64/libother.so", "headers/onnxruntime_c_api.h")
    publish(files, ORT, archive(*libraries, "jni/arm64-v8a/../../../escape.so"))
    said: list[str] = []
    folder = setup.fetch_libraries("cpu", address, said.append)
    assert folder == runtime_folder("cpu")
    assert sorted(path.name for path in folder.iterdir()) == ["libonnxruntime.so", "onnxruntime_c_api.h"]
    assert not list(hwnas_cache().parent.rglob("escape.so"))
    digest = hashlib.sha256(files[ORT]).hexdigest()
    assert digest in json.loads((hwnas_cache() / "android/checksums.json").read_text()).values()
    assert any("no checksum is known" in line for line in said)
    files.clear()
    assert setup.fetch_libraries("cpu", address, said.append) == folder
    # Another archive under the same name is refused, though the repository vouches for it.
    shutil.rmtree(folder)
    publish(files, ORT, archive(*libraries, "jni/arm64-v8a/libmore.so"))
    with pytest.raises(DeviceError, match="not what the first download on this computer say"):
        setup.fetch_libraries("cpu", address, said.append)
    assert not folder.exists()


def test_qnn_comes_in_the_version_that_the_pom_names(maven: tuple[str, dict[str, bytes]]) -> None:
    address, files = maven
    publish(files, f"{ORT_QNN}.aar", archive("jni/arm64-v8a/libonnxruntime.so"), "sha1")
    publish(files, f"{ORT_QNN}.pom", POM.encode())
    publish(files, QNN, archive("jni/arm64-v8a/libQnnGpu.so", "jni/arm64-v8a/libQnnHtp.so"))
    folder = setup.fetch_libraries("qnn", address, lambda text: None)
    assert {path.name for path in folder.iterdir()} == {"libonnxruntime.so", "libQnnGpu.so", "libQnnHtp.so"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: files.clear(), "cannot be fetched: HTTP Error 404"),
        (lambda files: files.update({f"{ORT}.sha256": b"0" * 64}), "not what the repository say"),
        (lambda files: files.pop(f"{ORT}.sha256"), "publishes no checksum"),
        (lambda files: publish(files, ORT, b"no archive"), "is no archive"),
        (lambda files: publish(files, ORT, archive("jni/x86/libonnxruntime.so")), "no libraries for arm64"),
    ],
)
def test_what_is_not_right_is_refused_and_leaves_nothing(
    maven: tuple[str, dict[str, bytes]], change: Callable[[dict[str, bytes]], object], reason: str
) -> None:
    address, files = maven
    publish(files, ORT, archive("jni/arm64-v8a/libonnxruntime.so"))
    change(files)
    with pytest.raises(DeviceError, match=reason):
        setup.fetch_libraries("cpu", address, lambda text: None)
    assert not runtime_folder("cpu").exists()
    assert not [path for path in (hwnas_cache() / "android").iterdir() if path.name != "checksums.json"]


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
    assert setup.sources() == RUNNER_SOURCES
    names = {path.name for path in setup.sources().iterdir()}
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
    with pytest.raises(HwnasError, match="cpu is no phone"):
        CliRunner().invoke(app, ["devices", "setup", "cpu"], catch_exceptions=False)
