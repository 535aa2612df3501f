"""Distillation on a Ray cluster of this machine: throughput by workers, and the driver's overhead.

Every node of the cluster lives on this machine, on the loopback address, and takes one core. Beside them, one
thread in this process is the figure to compare with. What they mean for real clusters: docs/scaling.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

CANDIDATES, SLICE, STEPS, TINY = 30, 1, 30, 10_000
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 200 << 20, "include_dashboard": False}
os.environ |= LOOPBACK | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])

import torch  # noqa: E402

from hwnas.compress.executor import Executor, LocalExecutor, OnProgress, RayExecutor  # noqa: E402
from hwnas.compress.library.distill import teacher_statistics  # noqa: E402
from hwnas.compress.library.open_run import open_inputs  # noqa: E402
from hwnas.compress.library.teacher import Teacher  # noqa: E402
from hwnas.compress.library.worker import TrainingContext, distill_slice  # noqa: E402
from hwnas.compress.reference.prepare import Reference  # noqa: E402
from hwnas.compress.settings import LibrarySettings  # noqa: E402
from hwnas.compress.training import loop  # noqa: E402
from hwnas.progress import Progress  # noqa: E402


@dataclass(frozen=True)
class Nothing:
    """A context for tasks that do nothing."""

    @property
    def needs(self) -> dict[str, int]:
        return {"CPU": 1}

    def pack(self) -> Nothing:
        return self

    def open(self) -> Nothing:
        return self


def echo(context: Nothing, task: int, on_progress: OnProgress) -> int:
    """The smallest task."""
    return task


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """Nodes of one core; the address of their cluster."""
    import ray
    from ray.cluster_utils import Cluster

    found: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
    try:
        for _ in range(workers):
            found.add_node(num_cpus=1, **NODE)
        yield found.address
    finally:
        ray.shutdown()
        found.shutdown()


def context() -> tuple[TrainingContext, list[list[Any]]]:
    """EfficientNet-B0 at 32 px with random weights, and slices of its first candidates."""
    settings = LibrarySettings(
        model="efficientnet_b0",
        weights="none",
        data="digits",
        cuts=(),
        space="compression",
        per_block=6,
        loss="nsr",
        train_epochs=1,
        epochs=2,
        steps=STEPS,
        batch_size=64,
        slice_size=SLICE,
        seed=0,
        threads=1,
    )
    inputs = open_inputs(settings, Progress())
    loop.tune_allocator()
    reference = Reference(spec=inputs.initial.spec, parts=inputs.parts, data=inputs.data)
    reference.module().to(memory_format=torch.channels_last)
    # Every block in turn, so that slices are alike.
    candidates = sorted(
        (c for c in inputs.candidates if c.part in range(1, 6)), key=lambda c: (c.choice, c.part)
    )
    candidates = candidates[:CANDIDATES]
    slices = [candidates[i : i + SLICE] for i in range(0, len(candidates), SLICE)]
    teacher = Teacher(inputs.parts, inputs.data, {})
    statistics = teacher_statistics(teacher, {c.part for c in candidates}, settings.batch_size)
    return TrainingContext(reference=reference, settings=settings, statistics=statistics), slices


def seconds(executor: Executor, function: Any, work: Any, tasks: Any) -> tuple[float, float]:
    """Until the first result, and from there to the last one."""
    start_s = time.perf_counter()
    first_s = 0.0
    for _ in executor.run(function, work, tasks, lambda *_: None):
        first_s = first_s or time.perf_counter()
    return first_s - start_s, time.perf_counter() - first_s


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    work, slices = context()
    print(
        f"EfficientNet-B0 at 32 px, {CANDIDATES} candidates, {SLICE} a slice, {STEPS} steps of 64 images, "
        "one thread each"
    )
    print(f"{'where':28} {'first slice, s':>15} {'the rest, s':>12} {'candidates/h':>13} {'times':>6}")
    rate = 0.0
    for workers in (0, 1, 2):
        if workers:
            with cluster(workers) as address:
                first_s, rest_s = seconds(RayExecutor(address), distill_slice, work, slices)
        else:
            first_s, rest_s = seconds(LocalExecutor(), distill_slice, work, slices)
        # With two workers the second slice ends about when the first one does.
        per_hour = 3600 * (CANDIDATES - SLICE * max(1, workers)) / rest_s
        rate = rate or per_hour
        name = f"Ray, {workers} node{'s' * (workers > 1)}" if workers else "this process"
        print(f"{name:28} {first_s:15.1f} {rest_s:12.1f} {per_hour:13.0f} {per_hour / rate:6.2f}")
    packed = work.pack()
    size = sum(t.numel() * t.element_size() for t in packed.weights.values())
    print(f"\nsent once to each worker: {size / 1e6:.1f} MB of teacher weights")
    with cluster(2) as address:
        executor = RayExecutor(address)
        list(executor.run(echo, Nothing(), range(4), lambda *_: None))
        cpu_s = time.process_time()
        start_s = time.perf_counter()
        count = sum(1 for _ in executor.run(echo, Nothing(), range(TINY), lambda *_: None))
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    print(
        f"{count:,} tasks that do nothing, 2 nodes: {wall_s:.1f} s, {1e3 * wall_s / count:.2f} ms a task; "
        f"the driver's own time {1e3 * cpu_s / count:.2f} ms a task"
    )
    with tempfile.TemporaryDirectory() as folder:
        print(f"the driver stores {stored(Path(folder), work, slices):.0f} candidates a second")


def stored(folder: Path, work: TrainingContext, slices: list[list[Any]]) -> float:
    """Candidates a second that the driver writes into the library, files synced."""
    from hwnas.compress.library.store import Library

    short = replace(work, settings=replace(work.settings, steps=1))
    found = [
        (c, *result)
        for s in slices
        for c, result in zip(s, distill_slice(short, s, lambda *_: None), strict=True)
    ]
    with Library(folder / "library") as library:
        library.add([candidate for candidate, _, _ in found])
        start_s = time.perf_counter()
        for candidate, result, graph in found:
            library.finish(candidate, result, graph)
        return len(found) / (time.perf_counter() - start_s)


if __name__ == "__main__":
    main()
