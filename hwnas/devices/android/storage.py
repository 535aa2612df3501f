"""What hwnas keeps on a phone: libraries and the runner by their hash, and a bounded cache of graphs."""

from __future__ import annotations

import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hwnas.devices.android.adb import Link, StorageFull
from hwnas.devices.android.libraries import set_hash
from hwnas.errors import DeviceError
from hwnas.files import read_bytes

CACHED = re.compile(r"^(\d+) ([0-9a-f]{32}\.(?:onnx|bin))$", re.MULTILINE)

# What is not ours to keep goes; the rest is told, the longest unused first.
TIDY = (
    'for file in *; do case "$file" in *.onnx|*.bin|runner.lock|owner) ;; *) rm -rf -- "$file";; esac; done; '
    "for file in $(ls -tr); do stat -c '%s %n' -- \"$file\"; done"
)


class Storage:
    """Files of ours on a phone; safe to use from two threads.

    Layout of `folder`: `lib-HASH/` (libraries), `runner-HASH`, `work/` (graphs, the runner's current folder).

    Args:
        cache_bytes: the graphs together may take so much; the longest unused goes first.
    """

    def __init__(self, link: Link, folder: str, cache_bytes: int) -> None:
        self.link = link
        self.folder = folder
        self.work = f"{folder}/work"
        self._cache_bytes = cache_bytes
        self._sizes: dict[str, int] = {}  # the longest unused first
        self._held: Counter[str] = Counter()
        self._lock = threading.RLock()

    def open(self) -> None:
        """Make the folder, remove what a killed process left in it, and see which graphs are there.

        Raises:
            DeviceError: the folder cannot be made or written to.
            LinkLost: the phone does not answer.
        """
        folder, work = shlex.quote(self.folder), shlex.quote(self.work)
        with self._lock:
            made = self.link.shell(
                f"mkdir -p {work} && chmod 700 {folder} && cd {work} && test -w . || exit 1; {TIDY}"
            )
            if made.code != 0:
                raise DeviceError(
                    f"phone {self.link.serial}: {self.folder} is of no use: {made.errors or 'not writable'}",
                    "set `folder` in the profile to a place where adb's shell may write and run programs",
                )
            self._sizes = {name: int(size) for size, name in CACHED.findall(made.output)}
            self._make_room(0)

    def install(self, libraries: Mapping[Path, str], runner: Mapping[Path, str]) -> tuple[str, str]:
        """Copy libraries and the runner, those that are not there yet; their places on the phone.

        Args:
            libraries, runner: files with their SHA-256.

        Raises:
            DeviceError: the phone has no room.
            LinkLost: the phone does not answer.
        """
        place, executable = f"lib-{set_hash(libraries)}", f"runner-{set_hash(runner)}"
        self._run(
            f'cd {shlex.quote(self.folder)} && for old in lib-* runner-*; do case "$old" in '
            f'{place}|{executable}) ;; *) rm -rf "$old";; esac; done; mkdir -p {place}'
        )
        wanted = {f"{self.folder}/{place}/{path.name}": (path, 0o700) for path in libraries}
        wanted |= {f"{self.folder}/{executable}": (path, 0o700) for path in runner}
        there = self._hashes(list(wanted))
        for target, (path, mode) in wanted.items():
            if there.get(target) != {**libraries, **runner}[path]:
                self._push(read_bytes(path), target, mode)
        return f"{self.folder}/{place}", f"{self.folder}/{executable}"

    def bring(self, files: Mapping[str, bytes]) -> int:
        """See to it that graph files are on the phone, and stay until they are dropped; bytes copied.

        Raises:
            DeviceError: they do not fit.
            LinkLost: the phone does not answer.
        """
        with self._lock:
            self._held.update(files.keys())
            missing = {name: content for name, content in files.items() if name not in self._sizes}
            if not missing:
                return 0
            try:
                needed = sum(len(content) for content in missing.values())
                self._make_room(needed)
                for name, content in missing.items():
                    self._push(content, f"{self.work}/{name}.part", 0o600)
                moves = (f"mv {name}.part {name}" for name in missing)
                self._run(f"cd {shlex.quote(self.work)} && {' && '.join(moves)}")
            except BaseException:
                self.drop(files)
                raise
            self._sizes |= {name: len(content) for name, content in missing.items()}
            return needed

    def write(self, name: str, content: bytes) -> None:
        """Write a file into the runner's folder that nobody keeps. Raises as `bring` does."""
        self._push(content, f"{self.work}/{name}", 0o600)

    def drop(self, files: Iterable[str]) -> None:
        """Graph files that one graph less needs; they stay in the cache."""
        with self._lock:
            self._held.subtract(list(files))
            for name in files:
                if name in self._sizes:
                    self._sizes[name] = self._sizes.pop(name)  # used last

    def _make_room(self, needed: int, limit: int | None = None) -> None:
        limit = self._cache_bytes if limit is None else limit
        spare = [name for name in self._sizes if self._held[name] <= 0]
        victims = []
        total = needed + sum(self._sizes.values())
        while spare and total > limit:
            victims.append(spare.pop(0))
            total -= self._sizes[victims[-1]]
        for start in range(0, len(victims), 500):
            self._run(f"cd {shlex.quote(self.work)} && rm -f {' '.join(victims[start : start + 500])}")
        for name in victims:
            del self._sizes[name]

    def _push(self, content: bytes, path: str, mode: int) -> None:
        """Write a file; where there is no room, with all graphs removed that nobody holds."""
        try:
            self.link.push(content, path, mode)
        except StorageFull as error:
            with self._lock:
                self._run(f"rm -f {shlex.quote(path)}")
                self._make_room(0, limit=0)
            try:
                self.link.push(content, path, mode)
            except StorageFull:
                self._run(f"rm -f {shlex.quote(path)}")
                raise DeviceError(
                    f"the storage of phone {self.link.serial} is full: {error}",
                    "free some space on it, then give the same command again: what was measured is kept",
                ) from error

    def _hashes(self, paths: Sequence[str]) -> dict[str, str]:
        command = f"sha256sum -- {' '.join(shlex.quote(path) for path in paths)} 2>/dev/null"
        rows = self.link.shell(command, limit_s=120).output.splitlines()
        found = (row.partition("  ") for row in rows)
        # A name with a backslash or a line break is printed escaped: taken for missing, it is copied again.
        return {path: digest for digest, _, path in found}

    def _run(self, command: str) -> None:
        answer = self.link.shell(command)
        if answer.code != 0:
            reason = answer.errors or answer.output or f"exit code {answer.code}"
            raise DeviceError(f"phone {self.link.serial} cannot keep files: {reason}", "see the reason")
