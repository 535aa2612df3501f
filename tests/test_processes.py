"""Processes of our own: how they start and end."""

from __future__ import annotations

import os
import signal

import pytest

from hwnas import processes


def test_a_process_that_ended_before_it_read_anything_is_ended_all_the_same() -> None:
    process = processes.start("no_such_module_anywhere")
    assert process.stdin is not None
    assert process.wait() == 1
    process.stdin.write(b"a question")
    processes.end(process)


def test_an_interrupt_from_the_keyboard_does_not_reach_it() -> None:
    process = processes.start("hwnas.compress.search.process")
    try:
        assert os.getpgid(process.pid) != os.getpgid(0)
    finally:
        process.terminate()
        processes.end(process)


def test_a_signal_ends_as_it_should_though_a_library_makes_another_exception_of_it() -> None:
    with pytest.raises(SystemExit) as ended, processes.ended_by({signal.SIGUSR1: SystemExit(7)}):
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        except SystemExit as error:
            raise ValueError("a schema cannot be built") from error
    assert ended.value.code == 7


def test_without_a_signal_an_exception_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="as it was"), processes.ended_by({signal.SIGUSR1: SystemExit(7)}):
        raise ValueError("as it was")
