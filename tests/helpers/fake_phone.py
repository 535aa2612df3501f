"""A phone without a phone: Debian's adb daemon in a network of its own, reached through a real adb server.

`tests/hardware/fake_phone/fetch.sh .fake_phone` brings the daemon; `python tests/helpers/fake_phone.py`
starts a phone and says how to use it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "hardware" / "fake_phone"
PACKAGES = Path(os.environ.get("HWNAS_FAKE_PHONE") or Path(__file__).parents[2] / ".fake_phone")
RUNNER_SOURCES = Path(__file__).parents[2] / "hwnas" / "devices" / "android" / "runner"
SERIAL = "127.0.0.1:6555"
ENDING = {signal.SIGINT, signal.SIGTERM}
GALAXY_S20 = {
    "ro.serialno": "R3CN10ABCDE",
    "ro.product.model": "SM-G981U",
    "ro.soc.model": "SM8250",
    "ro.board.platform": "kona",
    "ro.build.version.sdk": "33",
    "ro.build.version.release": "13",
    "ro.build.display.id": "TP1A.220624.014",
    "ro.vendor.build.fingerprint": "samsung/x1qsqw/x1q:13/TP1A",
    "ro.product.cpu.abi": "arm64-v8a",
}


def missing() -> str | None:
    """Why there can be no such phone here; None where there can."""
    if not (PACKAGES / "adbd").is_dir():
        return f"there is no adb daemon in {PACKAGES}: run tests/hardware/fake_phone/fetch.sh {PACKAGES}"
    for program in ("gcc", "unshare", "ip"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if subprocess.run(["unshare", "-rnm", "true"], capture_output=True).returncode != 0:
        return "this machine gives no network namespaces to us"
    return None


def build_runner(folder: Path) -> Path:
    """The runner for this machine."""
    runner = folder / "hwnas-runner"
    sources = [str(path) for path in sorted(RUNNER_SOURCES.glob("*.c")) if path.name != "ort_check.c"]
    strict = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *strict, "-o", str(runner), *sources, "-ldl", "-lpthread", "-lm"], check=True)
    return runner


def runtime_folder(folder: Path) -> Path:
    """ONNX Runtime's library of this machine, under the name that it has on a phone."""
    import onnxruntime

    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    folder.mkdir(exist_ok=True)
    (folder / "libonnxruntime.so").symlink_to(library)
    return folder


class FakePhone:
    """A running one; the folder is the phone's disk and holds what its stand-ins answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.port = 0

    def reset(self) -> None:
        """A cool Galaxy S20 with a Snapdragon, plugged in."""
        self.set_properties(GALAXY_S20)
        self.set_heat(status=0, battery_tenths=270)
        (self.folder / "fixed_performance").write_text("")
        self.plug()

    def set_properties(self, properties: Mapping[str, str]) -> None:
        rows = "".join(f"{name}={value}\n" for name, value in properties.items())
        (self.folder / "properties").write_text(rows)

    def set_heat(self, status: int, battery_tenths: int) -> None:
        (self.folder / "thermal_status").write_text(str(status))
        (self.folder / "battery").write_text(str(battery_tenths))

    @property
    def fixed_performance(self) -> list[str]:
        """What the mode was set to, one after the other."""
        return (self.folder / "fixed_performance").read_text().split()

    def plug(self) -> None:
        """The daemon runs, and adb's server knows it."""
        from adbutils import AdbClient, AdbError

        (self.folder / "plugged").touch()
        deadline_s = time.monotonic() + 10
        while self.port:
            client = AdbClient(port=self.port)
            with contextlib.suppress(AdbError):
                client.connect(SERIAL, timeout=5)
                if client.device(SERIAL).get_state() == "device":
                    return
                client.disconnect(SERIAL)
            assert time.monotonic() < deadline_s, "the phone does not come back"
            time.sleep(0.05)

    def unplug(self) -> None:
        """The daemon is killed, and stays away."""
        (self.folder / "plugged").unlink()
        self.kill_adbd()

    def kill_adbd(self) -> None:
        """As if the cable had been pulled; it comes back at once while the phone is plugged in."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((self.folder / "adbd.pid").read_text()), signal.SIGKILL)

    def processes(self) -> list[int]:
        """Runners that are alive."""
        found = []
        for path in Path("/proc").glob("[0-9]*/exe"):
            with contextlib.suppress(OSError):
                if str(path.readlink()).startswith(str(self.storage)):
                    found.append(int(path.parts[2]))
        return found

    def wait_for_no_process(self, limit_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + limit_s
        while self.processes():
            assert time.monotonic() < deadline_s, "a runner is still alive"
            time.sleep(0.02)


def _take_ending() -> None:
    """A child inherits what we block, and would outlive us."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextlib.contextmanager
def fake_phone() -> Iterator[FakePhone]:
    """Start a phone; while the block runs adb's clients in this process and its children find it."""
    import adbutils

    # Not pytest's folder: the path of a Unix socket may be about a hundred characters long.
    folder = Path(tempfile.mkdtemp(prefix="hwnas-phone-"))
    phone = FakePhone(folder)
    phone.reset()
    command = [str(SCRIPTS / "phone.sh"), str(PACKAGES / "adbd"), adbutils.adb_path(), str(folder)]
    process = subprocess.Popen(
        ["unshare", "-rnm", *command, str(SCRIPTS / "bin")],
        preexec_fn=_take_ending,  # noqa: PLW1509 - it is one system call
    )
    try:
        deadline_s = time.monotonic() + 20
        while not (folder / "adb.sock").exists() or not (folder / "adbd.pid").exists():
            assert process.poll() is None and time.monotonic() < deadline_s, "the adb server does not start"
            time.sleep(0.02)
        with _relay(folder / "adb.sock") as port:
            phone.port = port
            yield phone
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


@contextlib.contextmanager
def _relay(path: Path) -> Iterator[int]:
    """A port on the loopback interface that leads to a Unix socket; adb's clients know only ports."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, path), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, path: Path) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            threading.Thread(target=_pass_on, args=(client, path), daemon=True).start()


def _pass_on(client: socket.socket, path: Path) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        server.connect(str(path))
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        with contextlib.suppress(OSError):
            while selector.get_map():
                for key, _ in selector.select():
                    source, target = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    data = source.recv(1 << 16)
                    if data:
                        target.sendall(data)
                        continue
                    selector.unregister(source)
                    if source is server:  # adb's server has said everything
                        return
                    target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # before there are threads, which inherit it
    with fake_phone() as phone:
        folder = phone.folder
        runner = build_runner(folder)
        profile = folder / "fake-phone.toml"
        profile.write_text(
            'name = "fake-phone"\ndevice = "android"\ndescription = "an adb daemon on this machine"\n'
            f'[options]\ntarget = "{SERIAL}"\nrunner = "{runner}"\nfolder = "{phone.storage}"\n'
            f'runtime_dir = "{runtime_folder(folder / "runtime")}"\n'
        )
        print(f"export ANDROID_ADB_SERVER_PORT={phone.port}")
        print(f"hwnas profile mobilenetv2_100 --device {profile}", flush=True)
        signal.sigwait(ENDING)
