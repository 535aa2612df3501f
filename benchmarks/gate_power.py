"""How often `hwnas check` fails wrongly, and how often it finds a true slow-down, beside other rules.

python benchmarks/gate_power.py verify --minutes 10               # what 5 % and 10 % more work cost
python benchmarks/gate_power.py collect --pairs 500 --minutes 300 # measure pairs; goes on where it was
python benchmarks/gate_power.py replay                            # every rule on the same samples
python benchmarks/gate_power.py simulate --pairs 500 --file FILE  # pairs of known truth: the statistics only

Of five pairs three are of equal work (other weights), one has 5 % and one 10 % more layers. Every second
fifty are taken two at a time, so that each is measured while another process, the other's, loads a core. The
samples are only ever appended to (runs/gate_power.jsonl). A pair has as many repeats as the check takes, and
the other rules are given the runs of all of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import gate_rules
import gate_table
import numpy as np

from hwnas.devices.base import Device
from hwnas.files import encode
from hwnas.measurement import Protocol
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.gate import decision
from hwnas.profiles.gate.rank_tests import paired_shift
from hwnas.profiles.interleave import Slices, interleave
from hwnas.profiles.protocols import SIDE_BY_SIDE, is_last

LAYERS = {"same": 20, "5 %": 21, "10 %": 22}
CYCLE = ("same", "5 %", "same", "10 %", "same")
BLOCK = 50
"""So many pairs unloaded, then so many loaded, and so on."""

CHANNELS, SIZE = 64, 14
BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    sum(range(100_000))
"""


def network(layers: int, seed: int) -> Network:
    """Equal residual layers, so that the work is their number; stem and head are less than a layer."""
    import torch
    from torch import Tensor, nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.convolution(x))

    torch.manual_seed(seed)
    body = [Layer() for _ in range(layers)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10)]
    module = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), *body, *head)
    return Network.from_module(f"{layers} layers", module, (1, 3, SIZE, SIZE))


@cache
def networks() -> tuple[Network, dict[str, Network]]:
    """The baseline, and the network of each kind of pair."""
    return network(20, 0), {kind: network(layers, 1) for kind, layers in LAYERS.items()}


@contextmanager
def busy_core() -> Iterator[subprocess.Popen[bytes]]:
    """Another process that keeps a core busy; it ends with this one, however that ends."""
    with subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())]) as process:
        try:
            yield process
            if process.poll() is not None:
                sys.exit("the process that loads a core has ended by itself: the pair under way is not kept")
        finally:
            process.kill()


def verify(device: str, minutes: float) -> None:
    """Print how much longer the networks with more layers take, interleaved, with MACs."""
    from hwnas.networks.count import count

    baseline, others = networks()
    all_networks = [baseline, *others.values()]
    macs = [count(each.module(), (3, SIZE, SIZE))[0] for each in all_networks]
    protocol = replace(SIDE_BY_SIDE, max_repeats=10**6, max_seconds=60 * minutes)
    with open_device(load_profile(device)) as opened:
        assert isinstance(opened, Device)
        taken = list(repeats(opened, all_networks, protocol))
    print(f"{len(taken)} interleaved repeats, lower deciles")
    for place, kind in enumerate(others, start=1):
        shift = paired_shift([gate_rules.log_ratio((repeat[0], repeat[place])) for repeat in taken], 0.95)
        low, value, high = (f"{np.expm1(part):+.2%}" for part in (shift.low, shift.value, shift.high))
        interval = f"[{low}, {high}]" if np.isfinite(shift.low) else "(too few repeats for an interval)"
        print(f"{kind:>5}: MACs {macs[place] / macs[0] - 1:+.2%}, latency {value} {interval}")


def collect(path: Path, device: str, pairs: int, minutes: float) -> None:
    """Append pairs until the file has so many or the time is up; a killed run loses the pair under way."""
    start_s = time.monotonic()
    baseline, others = networks()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_device(load_profile(device)) as opened, path.open("a+b") as file:
        setup = {
            "fingerprint": encode(opened.fingerprint()),
            "protocol": encode(SIDE_BY_SIDE),
            "networks": [baseline.hash, *(each.hash for each in others.values())],
        }
        known = read(path)
        for key, value in setup.items():
            if known and known[-1][key] != value:
                sys.exit(f"{path}: {key} was {known[-1][key]}, is {value}; give another --file")
        if not file_ends_well(path):
            file.write(b"\n")

        def take(index: int) -> dict[str, Any] | None:
            """The pair, or None where the time is up."""
            if time.monotonic() - start_s > 60 * minutes:
                return None
            kind = kind_of(index)
            return {"index": index, **take_pair(opened, [baseline, others[kind]], kind)}

        missing = sorted({*range(pairs)} - {pair["index"] for pair in known})
        for is_loaded, block in itertools.groupby(missing, is_taken_loaded):
            for pair in taken_two_at_a_time(take, list(block)) if is_loaded else map(take, block):
                if pair is None:
                    continue
                pair |= {"loaded": is_loaded, **setup}
                file.write(json.dumps(pair).encode() + b"\n")
                file.flush()
                print(
                    f"{pair['index'] + 1}/{pairs} {pair['kind']}{', loaded' if is_loaded else ''}: "
                    f"{pair['elapsed_s'][-1]} s, {len(pair['elapsed_s'])} repeats, "
                    f"others used {pair['other_cores']} cores",
                    flush=True,
                )


def kind_of(index: int) -> str:
    """What is compared in a pair, by its place among all."""
    return CYCLE[index % len(CYCLE)]


def is_taken_loaded(index: int) -> bool:
    """Whether another process loads a core meanwhile."""
    return index // BLOCK % 2 == 1


def taken_two_at_a_time(
    take: Callable[[int], dict[str, Any] | None], indices: Sequence[int]
) -> Iterator[dict[str, Any] | None]:
    """Pairs as they end, each the load of the other; beside the last one a process works for nothing."""
    with ThreadPoolExecutor(2) as lanes:
        pending = {lanes.submit(take, index) for index in indices}
        try:
            while len(pending) > 1:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
            with busy_core():
                yield from (each.result() for each in pending)
        finally:
            lanes.shutdown(cancel_futures=True)


def take_pair(device: Any, both: list[Network], kind: str) -> dict[str, Any]:
    """One pair as plain data: every run of every repeat, and how busy the machine was with other things."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    start_s, busy_s, own_s = time.monotonic(), machine_busy_s(), sum(os.times()[:4])
    elapsed_s, taken = [], []
    for repeat in settled_repeats(device, both, gate_table.THRESHOLDS[kind]):
        elapsed_s.append(round(time.monotonic() - start_s, 2))
        taken.append([[[round(ms, 4) for ms in part] for part in slices] for slices in repeat])
    # The repeats' processes have ended, so that their time counts as our own.
    others_s = machine_busy_s() - busy_s - (sum(os.times()[:4]) - own_s)
    return {
        "kind": kind,
        "started_at": started_at,
        "elapsed_s": elapsed_s,
        "other_cores": round(others_s / (time.monotonic() - start_s), 2),
        "load_1min": os.getloadavg()[0],
        "repeats_ms": taken,
    }


def repeats(device: Device, networks: Sequence[Network], protocol: Protocol) -> Iterator[tuple[Slices, ...]]:
    """Interleaved repeats of all networks, as many as the protocol allows."""
    with closing(interleave(device, networks, protocol)) as rounds:
        for round_ in rounds:
            for series in round_.failed:
                sys.exit(f"{series.network.name}: {series.error}")
            yield tuple(series.repeats[-1] for series in round_.active)
            if is_last(protocol, len(round_.active[0].repeats), round_.elapsed_s):
                return


def machine_busy_s() -> float:
    """Seconds that all cores together have worked since the machine started, or were held from it."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = 3, 4
    return (sum(ticks) - ticks[idle] - ticks[waiting]) / os.sysconf("SC_CLK_TCK")


def settled_repeats(device: Any, both: list[Network], thresholds: tuple[float, ...]) -> Iterator[Any]:
    """Repeats as the check takes them, until it would be settled at each threshold."""
    log_ratios: list[float] = []
    settled: set[float] = set()
    for repeat in repeats(device, both, SIDE_BY_SIDE):
        yield repeat
        log_ratios.append(gate_rules.log_ratio(repeat))
        settled |= {limit for limit in thresholds if decision.is_settled(log_ratios, limit)}
        if len(settled) == len(thresholds):
            return


def simulate(path: Path, pairs: int) -> None:
    """Write pairs whose truth is known: every run takes its time, and now and then much longer."""
    if path.exists():
        sys.exit(f"{path} is there already, and may hold what was measured; give another --file")
    generator = np.random.default_rng(0)

    def run_ms(true_ms: float, is_loaded: bool) -> list[float]:
        undisturbed = true_ms * np.exp(generator.normal(0, 0.01)) * np.exp(generator.normal(0, 0.01, (5, 20)))
        delays = generator.exponential(2.0, (5, 20)) * (
            generator.random((5, 20)) < (0.6 if is_loaded else 0.05)
        )
        repeats_ms: list[float] = (undisturbed + delays).round(4).tolist()
        return repeats_ms

    with path.open("w") as file:
        for index in range(pairs):
            kind, is_loaded = kind_of(index), is_taken_loaded(index)
            factor = LAYERS[kind] / LAYERS["same"]
            taken = [[run_ms(1.0, is_loaded), run_ms(factor, is_loaded)] for _ in range(30)]
            pair = {
                "index": index,
                "kind": kind,
                "loaded": is_loaded,
                "elapsed_s": [0.0] * len(taken),
                "repeats_ms": taken,
            }
            pair["other_cores"] = float(is_loaded)
            file.write(json.dumps(pair) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The pairs of a file; one that was cut off by a kill is left out."""
    pairs = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            pairs.append(json.loads(line))
        except ValueError:
            continue
    return pairs


def file_ends_well(path: Path) -> bool:
    """Whether the file is empty or its last line is ended."""
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def replay(path: Path) -> None:
    """Print what each rule says about the same samples, of as many pairs as there are."""
    pairs = read(path)
    if not pairs:
        sys.exit(f"{path} has no pairs: python benchmarks/gate_power.py collect --pairs 500 --minutes 300")
    print(gate_table.tables([gate_table.Judged(pair) for pair in pairs]))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=["verify", "collect", "replay", "simulate"])
    parser.add_argument("--file", type=Path, default=Path("runs/gate_power.jsonl"))
    parser.add_argument("--device", default="cpu-1")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=5.0)
    given = parser.parse_args()
    match given.command:
        case "verify":
            verify(given.device, given.minutes)
        case "collect":
            collect(given.file, given.device, given.pairs, given.minutes)
        case "simulate":
            simulate(given.file, given.pairs)
        case "replay":
            replay(given.file)
        case _:
            print(__doc__)


if __name__ == "__main__":
    main()
