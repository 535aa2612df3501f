"""Processes of our own: how they start and end."""

from __future__ import annotations

import os

from hwnas import processes


def test_a_process_that_ended_before_it_read_anything_is_ended_all_the_same() -> None:
    process = processes.start("no_such_module_anywhere")
    assert process.stdin is not None
    assert process.wait() == 1
    process.stdin.write(b"a question")
    processes.end(process)


def test_an_interrupt_from_the_keyboard_does_not_reach_it() -> None:
    process = processes.start("hwnas.compress.search_process")
    try:
        assert os.getpgid(process.pid) != os.getpgid(0)
    finally:
        process.terminate()
        processes.end(process)
