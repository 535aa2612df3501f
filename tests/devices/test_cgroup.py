from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.devices.host import machine
from hwnas.devices.host.cgroup import quota_cpus, throttling
from hwnas.devices.host.device import HostDevice
from hwnas.measurement import DeviceProfile

V1 = "33 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "30 23 0:26 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
MEMORY = "36 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
QUOTAS_V1 = {"cpu.cfs_period_us": "100000\n"}


def furnish(root: Path, mounts: str, own: str, files: dict[str, str]) -> Path:
    """A root folder with what the kernel tells of a process' groups; `files` are below /sys/fs/cgroup."""
    texts = {"proc/self/mountinfo": mounts, "proc/self/cgroup": own}
    for name, text in {**texts, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_docker_with_version_1(tmp_path: Path) -> None:
    """The container's group is what is mounted, while the kernel names it by its whole path."""
    group = "/docker/3f2a"
    files = {f"cpu,cpuacct/{name}": text for name, text in {
        "cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n",
        "cpu.stat": "nr_periods 95\nnr_throttled 4\nthrottled_time 74787730\n",
    }.items()}  # fmt: skip
    own = f"5:memory:/docker/x\n4:cpuacct,cpu:{group}\n1:name=systemd:{group}\n"
    root = furnish(tmp_path, MEMORY + V1.format(mounted=group), own, files)
    assert quota_cpus(root) == 1.5
    found = throttling(root)
    assert (found.periods, found.throttled_periods) == (95, 4)
    assert found.throttled_s == pytest.approx(0.074787730)


def test_docker_with_version_2(tmp_path: Path) -> None:
    """In a namespace of its own the container's group is the root."""
    stat = "usage_usec 5\nnr_periods 10\nnr_throttled 7\nthrottled_usec 2500000\n"
    root = furnish(
        tmp_path, V2.format(mounted="/"), "0::/\n", {"cpu.max": "50000 100000\n", "cpu.stat": stat}
    )
    assert quota_cpus(root) == 0.5
    found = throttling(root)
    assert (found.periods, found.throttled_periods, found.throttled_s) == (10, 7, 2.5)


@given(
    quotas=st.lists(st.none() | st.integers(1000, 10_000_000), min_size=1, max_size=5), version=st.booleans()
)
def test_the_tightest_of_all_groups_around_counts(
    tmp_path_factory: pytest.TempPathFactory, quotas: list[int | None], version: bool
) -> None:
    files, folder, group = {}, "" if version else "cpu,cpuacct/", ""
    for number, quota in enumerate(quotas):
        if version:
            files[f"{folder}cpu.max"] = f"{'max' if quota is None else quota} 100000\n"
        else:
            files[f"{folder}cpu.cfs_quota_us"] = f"{-1 if quota is None else quota}\n"
            files[f"{folder}cpu.cfs_period_us"] = "100000\n"
        group += f"/a slice{number}"
        folder += f"a slice{number}/"
    own = f"0::{group}\n" if version else f"3:cpu,cpuacct:{group}\n"
    mounts = (V2 if version else V1).format(mounted="/")
    root = furnish(tmp_path_factory.mktemp("root"), mounts, own, files)
    known = [quota / 100_000 for quota in quotas if quota is not None]
    assert quota_cpus(root) == (min(known) if known else None)


@pytest.mark.parametrize("group", ["/../other", "/elsewhere/x"])
def test_a_group_outside_of_what_is_mounted_leaves_what_is(tmp_path: Path, group: str) -> None:
    mounts = V2.format(mounted="/docker/1")
    assert quota_cpus(furnish(tmp_path, mounts, f"0::{group}\n", {"cpu.max": "200000 100000"})) == 2


@pytest.mark.parametrize(
    "files",
    [{}, {"cpu.max": "max 100000\n"}, {"cpu.max": "nonsense\n"}, {"cpu.max": ""}, {"cpu.max": "1 0"},
     {"cpu.max": "\n\n5"}, {"cpu.max": "nan 1"}],
)  # fmt: skip
def test_no_quota_and_nonsense_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert quota_cpus(furnish(tmp_path, V2.format(mounted="/"), "0::/\n", files)) is None
    assert throttling(tmp_path).periods == 0
    assert quota_cpus(tmp_path / "nothing") is None


@pytest.fixture
def four_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight CPUs, of which this process may run on four, without a quota yet."""
    monkeypatch.setattr(machine, "ROOT", furnish(tmp_path, V2.format(mounted="/"), "0::/\n", {}))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "threads", "told"),
    [("max", 4, None), ("50000", 1, "0.5"), ("100000", 1, "1"), ("250000", 2, "2.5"), ("390000", 3, "3.9"),
     ("400000", 4, None), ("9900000", 4, None)],
)  # fmt: skip
def test_threads_are_those_that_the_quota_keeps_running(
    four_cpus: Path, quota: str, threads: int, told: str | None
) -> None:
    (four_cpus / "sys/fs/cgroup").mkdir(parents=True)
    (four_cpus / "sys/fs/cgroup/cpu.max").write_text(f"{quota} 100000\n")
    assert machine.usable_cores() == threads
    assert machine.limits() == ["4 of 8 CPUs", *([] if told is None else [f"CPU quota {told}"])]


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("given_text", "threads"), [("1", 1), ("3,2", 3), ("99", 4), ("0", 4), ("x", 4), ("", 4)]
)
def test_openmp_s_own_setting_is_kept_to(
    given_text: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given_text)
    assert machine.usable_cores() == threads


def test_without_limits_the_fingerprint_is_what_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert machine.limits() == []


def test_one_place_counts_cpus() -> None:
    room = Path(machine.__file__).parents[2]
    counting = {
        str(path.relative_to(room))
        for path in room.rglob("*.py")
        if any(name in path.read_text() for name in ("cpu_count", "sched_getaffinity", "get_num_threads"))
    }
    assert counting == {
        "devices/host/machine.py",
        "devices/host/chip.py",  # of the whole machine, for its name
        "processes.py",  # of the whole machine, for which allocators reserve addresses
        "compress/reference/reloaded.py",  # passes the threads of training on
        "global_state.py",  # puts them back
    }


STAT = """cpu  999 9 999 9 9 9 9 9 0 0
cpu0 {busy} 10 100 5000 50 7 3 20 0 0
cpu1 200 0 0 5000 0 0 0 0 0 0
cpu12 77 0 0 5000 0 0 0 0 0 0
intr 5
"""


@pytest.mark.usefixtures("four_cpus")
def test_busy_time_is_that_of_the_allowed_cpus(four_cpus: Path) -> None:
    (four_cpus / "proc/stat").write_text(STAT.format(busy=1000))
    found = machine.cpu_times()
    assert found is not None
    assert found.cpus == 4
    assert found.busy_s * os.sysconf("SC_CLK_TCK") == pytest.approx(1000 + 10 + 100 + 7 + 3 + 20 + 200)
    assert 0 < found.own_s < 1e6
    (four_cpus / "proc/stat").unlink()
    assert machine.cpu_times() is None


def write_quota(root: Path, quota_us: int, periods: int, throttled: int, throttled_us: int) -> None:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota_us} 100000\n")
    text = f"nr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec {throttled_us}\n"
    (folder / "cpu.stat").write_text(text)


@pytest.mark.parametrize(("threads", "repeated"), [(1, True), (2, True), (3, False)])
def test_what_the_quota_stopped_is_taken_again_where_threads_are_within_it(
    four_cpus: Path, threads: int, repeated: bool
) -> None:
    (four_cpus / "proc/stat").write_text(STAT.format(busy=1000))
    write_quota(four_cpus, 200_000, 10, 0, 0)
    profile = DeviceProfile(name="cpu", device="host", description="", options={"threads": threads})
    with HostDevice(profile) as device:
        assert "CPU quota 2" in device.fingerprint().runtime
        assert not device.conditions().throttled
        write_quota(four_cpus, 200_000, 20, 8, 1_000_000_000)
        conditions = device.conditions()
        assert bool(conditions.throttled) == repeated
        assert conditions.cpu is not None
        assert (conditions.cpu.quota_periods, conditions.cpu.throttled_periods) == (20, 8)
        assert conditions.limits == (("CPU quota 2",) if repeated else ())
        assert not device.conditions().throttled


@pytest.fixture
def real_group() -> Iterator[tuple[Path, float]]:
    """A group of this machine with a quota of a fifth of a CPU."""
    version_1, version_2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    base, file, text = version_2, "cpu.max", "20000 100000"
    if (version_1 / "cpu.cfs_quota_us").is_file():
        base, file, text = version_1, "cpu.cfs_quota_us", "20000"
    folder = base / f"hwnas-test-{os.getpid()}"
    try:
        if not (base / "cgroup.procs").is_file():
            raise OSError("no control groups here")
        folder.mkdir()
    except OSError:
        pytest.skip("this machine lets nobody make a control group")
    try:
        if not (folder / file).is_file():
            pytest.skip("this machine's control groups have no CPU quota")
        (folder / file).write_text(text)
        yield folder, 0.2
    finally:
        folder.rmdir()


IN_GROUP = """
import os, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from hwnas.devices.host import machine
stopped, end = False, time.perf_counter() + 60
while not stopped and time.perf_counter() < end:
    stopped = machine.cpu_times().throttled_periods > 0
print(machine.usable_cores(), machine.quota_cpus(), stopped, machine.limits())
"""


def test_a_real_quota_of_this_machine(real_group: tuple[Path, float]) -> None:
    folder, quota = real_group
    done = subprocess.run(
        [sys.executable, "-c", IN_GROUP, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"1 {quota} True ")
    assert "CPU quota 0.2" in done.stdout
