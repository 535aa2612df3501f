"""Shell scripts that mount file systems of their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import tiny

WAYS = (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"])


def in_mounts(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A shell script that may mount file systems, which nobody else sees and which end with it.

    The test is skipped where the kernel lets nobody mount.
    """
    (folder / "probe").mkdir()
    probe = ["sh", "-c", "mount -t tmpfs none probe"]
    for way in WAYS:
        if shutil.which("unshare") and subprocess.run([*way, *probe], cwd=folder).returncode == 0:
            return tiny.run_command(folder, [*way, "sh", "-e", "-c", script, "sh", *arguments])
    pytest.skip("needs to mount a tmpfs")
