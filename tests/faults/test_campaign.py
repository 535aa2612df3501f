"""What only `make faults` runs is what the other targets run, with other seeds."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny


def functions(marked: str) -> set[str]:
    """The test functions that have a case with such marks."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-p",
            "no:cacheprovider",
            "-m",
            marked,
            "tests/faults",
        ],
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
    )
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.slow
def test_every_test_of_the_campaign_has_a_case_beside_it() -> None:
    only_there = functions("faults")
    assert only_there
    assert only_there <= functions("not faults and not hardware")
