"""One phone over adb: commands with exit codes, files, a process that is talked to; deadlines of our own."""

from __future__ import annotations

import contextlib
import io
import shlex
import stat
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from adbutils import AdbClient, AdbConnection, AdbError

from hwnas.errors import DeviceError, first_line

GRACE_S = 5.0  # beyond the phone's own `timeout`, for the way there and back
CHUNK = 64 * 1024  # the largest that adb's sync protocol takes
STDIN, STDOUT, STDERR, EXIT = range(4)  # packets of adb's shell protocol, version 2


class LinkLost(Exception):
    """The phone cannot be reached at this moment; it may come back."""


class StorageFull(Exception):
    """The phone's storage has no room for a file."""


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    code: int
    output: str
    errors: str


class Link:
    """A phone by its serial.

    Args:
        serial: as `adb devices` shows it, or an address such as `192.168.1.7:5555`.
    """

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self._client = AdbClient()
        self._device = self._client.device(serial)

    def shell(self, command: str, limit_s: float = 30.0) -> Answer:
        """Run a command; the phone ends it after `limit_s` seconds.

        Raises:
            LinkLost: the phone does not answer.
        """
        seconds = max(1, round(limit_s))
        with self.process(f"timeout {seconds} sh -c {shlex.quote(command)}", seconds + GRACE_S) as process:
            output = b"".join(process.chunks(seconds + GRACE_S))
            return Answer(process.code, output.decode(errors="replace"), process.errors)

    @contextlib.contextmanager
    def process(self, command: str, limit_s: float) -> Iterator[Process]:
        """A process on the phone; leaving the block closes the connection, which ends its stdin."""
        with _told():
            connection = self._open(f"shell,v2,raw:{command}", limit_s)
        try:
            yield Process(connection)
        finally:
            with contextlib.suppress(OSError):
                connection.close()

    def push(self, content: bytes | BinaryIO, path: str, mode: int = 0o600, limit_s: float = 300.0) -> None:
        """Write a file on the phone.

        Raises:
            StorageFull: there is no room for it.
            LinkLost: the phone does not answer.
        """
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        deadline_s = time.monotonic() + limit_s
        with _told(), contextlib.closing(self._open("sync:", limit_s)) as connection:
            target = f"{path},{stat.S_IFREG | mode}".encode()
            connection.conn.sendall(b"SEND" + struct.pack("<I", len(target)) + target)
            # A phone that refuses the file closes its end while we still send: the reason is read below.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while chunk := source.read(CHUNK):
                    connection.conn.settimeout(_left(deadline_s))
                    connection.conn.sendall(b"DATA" + struct.pack("<I", len(chunk)) + chunk)
                connection.conn.sendall(b"DONE" + struct.pack("<I", int(time.time())))
            connection.conn.settimeout(_left(deadline_s))
            kind, length = struct.unpack("<4sI", connection.read_exact(8))
            if kind == b"OKAY":
                return
            reason = connection.read_exact(length).decode(errors="replace")
        if "space" in reason or "quota" in reason.lower():
            raise StorageFull(reason)
        raise DeviceError(f"phone {self.serial} refuses the file {path}: {reason}", "see the reason")

    def read(self, path: str, limit_s: float = 300.0) -> bytes:
        """Read a file of the phone. Raises LinkLost: it is not there, or the phone does not answer."""
        with self.process(f"cat {shlex.quote(path)}", limit_s) as process:
            content = b"".join(process.chunks(limit_s))
        if process.code != 0:
            raise LinkLost(f"{path} cannot be read: {process.errors}")
        return content

    def reconnect(self) -> None:
        """Ask adb for the phone anew; an address is connected to again. Raises LinkLost."""
        with _told():
            if self.state() == "device":
                return
            if ":" in self.serial:
                self._client.disconnect(self.serial)
                self._client.connect(
                    self.serial, timeout=10
                )  # tells a failure as a text, so the state is asked
            state = self.state()
            if state != "device":
                raise LinkLost(f"its state is {state}")

    def state(self) -> str:
        """`device` where it can be used, else `offline`, `unauthorized`, `absent`, … Raises LinkLost."""
        return devices(self._client).get(self.serial, "absent")

    def _open(self, service: str, limit_s: float) -> AdbConnection:
        connection = self._device.open_transport(timeout=limit_s)
        connection.send_command(service)
        connection.check_okay()
        return connection


class Process:
    """A process on the phone: its stdout in chunks or lines, the end of its stderr, its exit code.

    Attributes:
        code: the exit code; -1 while it runs.
    """

    def __init__(self, connection: AdbConnection) -> None:
        self._connection = connection
        self._errors: deque[str] = deque(maxlen=200)
        self._rest = b""
        self.code = -1

    @property
    def errors(self) -> str:
        """The last of what it wrote to stderr."""
        return "".join(self._errors).strip()

    def send(self, text: str) -> None:
        """Write to its stdin. Raises LinkLost."""
        data = text.encode()
        with _told():
            self._connection.conn.sendall(struct.pack("<BI", STDIN, len(data)) + data)

    def chunks(self, limit_s: float) -> Iterator[bytes]:
        """Its stdout until it ends. Raises LinkLost, also when `limit_s` has passed."""
        deadline_s = time.monotonic() + limit_s
        while self.code < 0:
            with _told():
                self._connection.conn.settimeout(_left(deadline_s))
                kind, length = struct.unpack("<BI", self._connection.read_exact(5))
                data = self._connection.read_exact(length)
            if kind == STDOUT:
                yield data
            elif kind == STDERR:
                self._errors.append(data.decode(errors="replace"))
            elif kind == EXIT:
                self.code = data[0]

    def line(self, limit_s: float) -> str | None:
        """The next line of its stdout; None when it has ended. Raises LinkLost, also after `limit_s`."""
        chunks = self.chunks(limit_s)
        while b"\n" not in self._rest:
            chunk = next(chunks, None)
            if chunk is None:
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace")


def devices(client: AdbClient) -> dict[str, str]:
    """The state of every phone that the adb server knows, by serial. Raises LinkLost."""
    with _told(), client.make_connection(timeout=10) as connection:
        connection.send_command("host:devices")
        connection.check_okay()
        lines = connection.read_string_block().splitlines()
    return {serial: state for serial, _, state in (line.partition("\t") for line in lines)}


def find_serial(wanted: str) -> str:
    """The phone that is meant: the one named, or the only one there is. An address is connected to.

    Raises:
        DeviceError: none or several, or the one that is meant is not ready; with what to do.
    """
    client = AdbClient()
    try:
        if ":" in wanted and devices(client).get(wanted) != "device":
            Link(wanted).reconnect()
        found = devices(client)
    except LinkLost as error:
        raise DeviceError(f"phone {wanted or '(any)'} cannot be reached: {error}", _CONNECT) from None
    if not wanted and not found:
        raise DeviceError("no phone is connected", _CONNECT)
    if not wanted and len(found) > 1:
        raise DeviceError(f"adb knows {len(found)} phones: {', '.join(sorted(found))}", _CHOOSE)
    serial = wanted or next(iter(found))
    state = found.get(serial, "absent")
    if state != "device":
        raise DeviceError(f"phone {serial} is {state}", _FIXES.get(state, _CONNECT))
    return serial


_CONNECT = (
    "plug the phone in and switch on USB debugging (Settings > Developer options), or name its address: "
    "--device PROFILE:IP:PORT; `adb devices` must list it"
)
_CHOOSE = "name one of them: --device PROFILE:SERIAL"
_FIXES = {
    "unauthorized": "unlock the phone and allow USB debugging from this computer",
    "offline": "unplug the phone and plug it in again, or `adb reconnect offline`",
    "no permissions": "let udev give you access (Debian: apt install android-sdk-platform-tools-common)",
}


def _left(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise LinkLost("it does not answer in time")
    return left_s


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Whatever adb and sockets raise, as one exception."""
    try:
        yield
    except (AdbError, EOFError, OSError, subprocess.SubprocessError) as error:
        raise LinkLost(first_line(error)) from error
