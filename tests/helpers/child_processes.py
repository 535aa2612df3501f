"""Other processes, as the system tells of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Look until it happened; fails where it does not."""
    end_s = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def status(pid: int) -> str:
    """What /proc tells of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
