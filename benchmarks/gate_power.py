"""How often `hwnas check` fails wrongly, and how often it finds a true slow-down, beside other rules.

python benchmarks/gate_power.py verify --minutes 10               # what 5 % and 10 % more work cost
python benchmarks/gate_power.py collect --pairs 650 --minutes 300 # measure pairs; goes on where it was
python benchmarks/gate_power.py replay                            # every rule on the same samples
python benchmarks/gate_power.py simulate --pairs 500 --file FILE  # pairs of known truth: the statistics only

Of five pairs three are of equal work (other weights), one has 5 % and one 10 % more layers. Every second five
are taken while another process loads a core. The samples are only ever appended to (runs/gate_power.jsonl).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gate_rules
import numpy as np

from hwnas.files import encode
from hwnas.network import Network
from hwnas.profiles import gate
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.ranks import paired_shift
from hwnas.profiles.sitting import Pace, log_ratio, repeats

LAYERS = {"same": 20, "5 %": 21, "10 %": 22}
CYCLE = ("same", "5 %", "same", "10 %", "same")
THRESHOLDS = {"same": (0.05, 0.025), "5 %": (0.025,), "10 %": (0.05,)}
CHANNELS, SIZE = 64, 14


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


def networks() -> tuple[Network, dict[str, Network]]:
    """The baseline, and the network of each kind of pair."""
    return network(20, 0), {kind: network(layers, 1) for kind, layers in LAYERS.items()}


@contextmanager
def loaded(is_loaded: bool) -> Iterator[None]:
    """Another process that keeps a core busy."""
    if not is_loaded:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def verify(device: str, minutes: float) -> None:
    """Print how much longer the networks with more layers take, interleaved, with MACs."""
    from hwnas.compress.blocks import count

    baseline, others = networks()
    all_networks = [baseline, *others.values()]
    macs = [count(each.module(), (3, SIZE, SIZE))[0] for each in all_networks]
    pace = Pace(max_repeats=10**6, max_seconds=60 * minutes)
    with open_device(load_profile(device)) as opened:
        taken = list(repeats(opened, all_networks, pace))
    print(f"{len(taken)} interleaved repeats, lower deciles")
    for place, kind in enumerate(others, start=1):
        shift = paired_shift([log_ratio((repeat[0], repeat[place])) for repeat in taken], 0.95)
        low, value, high = (f"{np.expm1(part):+.2%}" for part in (shift.low, shift.value, shift.high))
        interval = f"[{low}, {high}]" if np.isfinite(shift.low) else "(too few repeats for an interval)"
        print(f"{kind:>5}: MACs {macs[place] / macs[0] - 1:+.2%}, latency {value} {interval}")


def collect(path: Path, device: str, pairs: int, minutes: float) -> None:
    """Append pairs until the file has so many or the time is up; a killed run loses the pair under way."""
    start_s = time.monotonic()
    baseline, others = networks()
    profile = load_profile(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_device(profile) as opened, path.open("a+b") as file:
        fingerprint = encode(opened.fingerprint())
        known = read(path)
        if known and known[0]["fingerprint"] != fingerprint:
            sys.exit(f"{path} was collected elsewhere: {known[0]['fingerprint']}; give another --file")
        if not file_ends_well(path):
            file.write(b"\n")
        for index in range(len(known), pairs):
            if time.monotonic() - start_s > 60 * minutes:
                break
            kind, is_loaded = CYCLE[index % 5], index // 5 % 2 == 1
            began_s = time.monotonic()
            with loaded(is_loaded):
                taken = list(sitting(opened, [baseline, others[kind]], THRESHOLDS[kind]))
            pair = {
                "kind": kind,
                "loaded": is_loaded,
                "seconds": round(time.monotonic() - began_s, 2),
                "load_1min": Path("/proc/loadavg").read_text().split()[0],
                "fingerprint": fingerprint,
                "repeats_ms": [
                    [[[round(ms, 4) for ms in part] for part in slices] for slices in repeat]
                    for repeat in taken
                ],
            }
            file.write(json.dumps(pair).encode() + b"\n")
            file.flush()
            print(
                f"{index + 1}/{pairs} {kind}{', loaded' if is_loaded else ''}: {pair['seconds']} s",
                flush=True,
            )


def sitting(device: Any, both: list[Network], thresholds: tuple[float, ...]) -> Iterator[Any]:
    """Repeats as the check takes them, until it would be settled at each threshold."""
    log_ratios: list[float] = []
    settled: set[float] = set()
    for repeat in repeats(device, both, Pace()):
        yield repeat
        log_ratios.append(log_ratio(repeat))
        settled |= {limit for limit in thresholds if gate.is_settled(log_ratios, limit)}
        if len(settled) == len(thresholds):
            return


def simulate(path: Path, pairs: int) -> None:
    """Write pairs whose truth is known: every run takes its time, and now and then much longer."""
    generator = np.random.default_rng(0)

    def run_ms(true_ms: float, is_loaded: bool) -> list[float]:
        undisturbed = true_ms * np.exp(generator.normal(0, 0.01)) * np.exp(generator.normal(0, 0.01, (5, 20)))
        delays = generator.exponential(2.0, (5, 20)) * (
            generator.random((5, 20)) < (0.6 if is_loaded else 0.05)
        )
        return (undisturbed + delays).round(4).tolist()

    with path.open("w") as file:
        for index in range(pairs):
            kind, is_loaded = CYCLE[index % 5], index // 5 % 2 == 1
            factor = LAYERS[kind] / LAYERS["same"]
            taken = [[run_ms(1.0, is_loaded), run_ms(factor, is_loaded)] for _ in range(30)]
            pair = {"kind": kind, "loaded": is_loaded, "seconds": 0.0, "fingerprint": {}, "repeats_ms": taken}
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
    """Print what each rule says about the same samples."""
    pairs = read(path)
    if not pairs:
        sys.exit(f"{path} has no pairs: python benchmarks/gate_power.py collect --pairs 500")
    columns = [
        ("A/A fails at 5 %", "same", 0.05, "regression"),
        ("A/A fails at 2.5 %", "same", 0.025, "regression"),
        ("10 % found at 5 %", "10 %", 0.05, "regression"),
        ("5 % found at 2.5 %", "5 %", 0.025, "regression"),
        ("A/A inconclusive at 5 %", "same", 0.05, "inconclusive"),
        ("A/A inconclusive at 2.5 %", "same", 0.025, "inconclusive"),
        ("10 % inconclusive at 5 %", "10 %", 0.05, "inconclusive"),
        ("5 % inconclusive at 2.5 %", "5 %", 0.025, "inconclusive"),
    ]
    for title, states in (("all", (False, True)), ("quiet", (False,)), ("loaded", (True,))):
        chosen = [pair for pair in pairs if pair["loaded"] in states]
        if not chosen:
            continue
        seconds = [pair["seconds"] for pair in chosen]
        print(
            f"\n{title}: {len(chosen)} pairs; seconds a check: median {statistics.median(seconds):.1f}, "
            f"longest {max(seconds):.1f}; shares with Clopper-Pearson 95 % intervals"
        )
        for rule, decide in gate_rules.RULES.items():
            print(f"  {rule}")
            for column, kind, threshold, counted in columns:
                verdicts = [decide(pair["repeats_ms"], threshold) for pair in chosen if pair["kind"] == kind]
                if verdicts and (counted == "regression" or rule == gate_rules.OURS):
                    print(f"    {column:<26} {gate_rules.share(verdicts.count(counted), len(verdicts))}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=["verify", "collect", "replay", "simulate"])
    parser.add_argument("--file", type=Path, default=Path("runs/gate_power.jsonl"))
    parser.add_argument("--device", default="cpu")
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
