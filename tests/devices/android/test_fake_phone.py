"""The phone without a phone, as a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fake_phone
import pytest


def test_it_ends_when_told_and_leaves_nothing() -> None:
    reason = fake_phone.missing()
    if reason is not None:
        pytest.skip(reason)
    command = [sys.executable, str(Path(fake_phone.__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline().startswith("export ANDROID_ADB_SERVER_PORT=")
        profile = Path(program.stdout.readline().split()[-1])
        assert profile.is_file()
        program.terminate()
        assert program.wait(30) == 0
    assert not profile.parent.exists()
