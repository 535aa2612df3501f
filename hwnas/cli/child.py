"""`python -m hwnas.cli.child …`: the command `hwnas` for a process of ours, which it does not outlive."""

from __future__ import annotations

from hwnas import processes
from hwnas.cli.main import main

if __name__ == "__main__":
    with processes.ending_with_parent():
        main()
