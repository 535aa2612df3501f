"""What changes around a run: another process, the clock, the data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from spoilt_runs import LIBRARY, Place, go_on
from tiny import snapshot

from hwnas.errors import RunDirectoryError

# Each look at the wall clock shows it an hour before the look before.
BACKWARDS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>

static atomic_long looks;
static time_t hours(void) { return 3600 * (time_t)atomic_fetch_add(&looks, 1); }

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (id == CLOCK_REALTIME && !code) now->tv_sec -= hours();
    return code;
}

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int code = real(now, zone);
    if (!code) now->tv_sec -= hours();
    return code;
}

time_t time(time_t *now) {
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    if (now) *now = moment.tv_sec;
    return moment.tv_sec;
}
"""


@pytest.fixture
def backwards(workplace: Path) -> str:
    """A library that turns the clock back, for LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler for Linux")
    source, library = workplace / "backwards.c", workplace / "backwards.so"
    source.write_text(BACKWARDS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.mark.slow
def test_a_clock_that_runs_backwards_changes_nothing(place: Place, workplace: Path, backwards: str) -> None:
    """The run is killed by the right clock and goes on by the wrong one."""
    arguments = tiny.compress_arguments("whole")
    assert tiny.run_python(workplace, ["killer.py", "distill", "5", *arguments]).returncode == -9
    look = "import time; print(time.time() - time.time())"
    assert float(tiny.run_python(workplace, ["-c", look], LD_PRELOAD=backwards).stdout) > 3000
    done = tiny.run_hwnas(workplace, *arguments, LD_PRELOAD=backwards)
    assert done.returncode == 0, done.stderr
    assert snapshot(workplace / "whole") == snapshot(place.whole)
    done = tiny.run_hwnas(workplace, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert "finetune" not in done.stderr
    assert snapshot(workplace / "whole") == snapshot(place.whole)


def test_the_latest_measurement_is_the_one_stored_last_whatever_the_clock_said(tmp_path: Path) -> None:
    from hwnas.measurement import Conditions, Fingerprint, Measurement
    from hwnas.profiles.protocols import QUICK
    from hwnas.profiles.store import MeasurementStore

    fingerprint = Fingerprint(
        chip="c", os_build="o", driver="d", runtime="r", precision="fp32", power_mode="default"
    )
    first = Measurement(
        network_hash="n",
        kind="measured",
        repeats_ms=((1.0,),),
        warmup_ms=(),
        anchor_ms=(),
        metrics={},
        placement={},
        protocol=QUICK,
        fingerprint=fingerprint,
        conditions=(Conditions(), Conditions()),
        started_at="2030-01-01T00:00:00+00:00",
    )
    second = replace(first, repeats_ms=((2.0,),), started_at="1970-01-01T00:00:00+00:00")
    with MeasurementStore(tmp_path / "measurements.db") as store:
        store.put(first, fingerprint, QUICK)
        store.put(second, fingerprint, QUICK)
        assert store.get("n", fingerprint, QUICK) == second


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_ends_as_if_it_were_alone(
    place: Place, workplace: Path
) -> None:
    """The first process stops itself in the midst of distilling, and goes on afterwards."""
    arguments = tiny.compress_arguments("whole")
    first = tiny.start_python(
        workplace, ["killer.py", "distill", "5", *arguments], KILLER_SIGNAL=str(int(signal.SIGSTOP))
    )
    try:
        _, status = os.waitpid(first.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        before = tiny.tree(workplace / "whole")
        done = tiny.run_hwnas(workplace, *arguments)
        assert done.returncode == 2
        assert "another hwnas process works in whole" in done.stderr
        assert "fix: " in done.stderr
        assert tiny.tree(workplace / "whole") == before
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert snapshot(workplace / "whole") == snapshot(place.whole)


def test_a_dataset_that_changed_between_two_runs_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pixel of one image."""
    import sklearn.datasets

    real = sklearn.datasets.load_digits()
    before = tiny.tree(copy)
    real.images[1000, 3, 3] = 16 - real.images[1000, 3, 3]
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: real)
    with pytest.raises(RunDirectoryError, match="was made with data = ") as error:
        go_on(copy, library=LIBRARY)
    assert "--out" in error.value.fix
    assert tiny.tree(copy) == before
