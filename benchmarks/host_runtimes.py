"""The runtimes of this machine's CPU that are installed, on five networks, in one interleaved session.

python benchmarks/host_runtimes.py [--rounds 15] [--seconds 0.2] [--threads 1]

In each round every network is run by every runtime in turn, so that what else the machine does meets all of
them. A cell is in ms the lower decile of all runs, which other work hardly reaches, and then the median of
the rounds' medians; or the reason why there is none. The table is for `docs/devices.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import timm
import torch

from hwnas.devices.host.cpu import CpuDevice
from hwnas.devices.host.process import HostProcess
from hwnas.errors import HwnasError, first_line
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile, open_device, with_options

MODELS = ("resnet18", "mobilenetv2_100", "efficientnet_b0", "convnext_atto", "deit_tiny_patch16_224")
PROFILES = ("cpu", "openvino", "mnn", "ncnn", "cpu-int8", "openvino-int8")
SIZE, WARMUP_S = 224, 0.3


def main() -> None:
    """Print a row for each runtime and a column for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each network and runtime in a round")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    networks = [network_of(name) for name in MODELS]
    devices = [device for name in PROFILES if (device := installed(name, given.threads))]
    with ExitStack() as held:
        held.enter_context(open_device(load_profile("cpu")))  # takes the CPU's lock
        held_by = [[load(device, network, held) for network in networks] for device in devices]
        samples_ms: list[list[list[list[float]]]] = [[[] for _ in networks] for _ in devices]
        before = os.getloadavg()[0]
        for _ in range(given.rounds):
            for n in range(len(networks)):
                for d in range(len(devices)):
                    process = held_by[d][n]
                    if isinstance(process, HostProcess):
                        samples_ms[d][n].append(process.sample(1, given.seconds))
    known = devices[0].fingerprint()
    load_averages = f"load average {before:.2f} before, {os.getloadavg()[0]:.2f} after"
    print(f"{known.chip}; {given.threads} threads; {given.rounds} rounds; {load_averages}\n")
    print_table(devices, held_by, samples_ms)


def network_of(name: str) -> Network:
    """One with random weights, calibrated with noise: both change no latency."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((4, 3, SIZE, SIZE)).astype(np.float32)
    return Network.from_module(name, timm.create_model(name), (1, 3, SIZE, SIZE)).calibrated(images)


def installed(name: str, threads: int) -> CpuDevice | None:
    """The device of a profile; None, and the reason, where its runtime is not installed."""
    device = open_device(with_options(load_profile(name), threads=threads))
    assert isinstance(device, CpuDevice)
    try:
        for package in device.distributions:
            version(package)
    except PackageNotFoundError:
        print(f"{name} is left out: pip install 'hwnas[{device.extra}]'")
        return None
    return device


def load(device: CpuDevice, network: Network, held: ExitStack) -> HostProcess | str:
    """A process that has the network and is warm, or why there is none."""
    process = HostProcess(device.runtime)
    held.callback(process.end)
    try:
        process.load(device.content(network), device.threads, **device.settings())
        process.sample(1, WARMUP_S)
    except HwnasError as error:
        return error.cause
    except RuntimeError as error:
        return first_line(error)
    return process


def print_table(
    devices: Sequence[CpuDevice],
    held_by: Sequence[Sequence[HostProcess | str]],
    samples_ms: Sequence[Sequence[Sequence[Sequence[float]]]],
) -> None:
    """Print the table in Markdown."""
    print(f"| profile | runtime | {' | '.join(MODELS)} |\n|{'---|' * (2 + len(MODELS))}")
    for device, processes, of_device in zip(devices, held_by, samples_ms, strict=True):
        cells = []
        for process, of_network in zip(processes, of_device, strict=True):
            if isinstance(process, str):
                cells.append(process)
            else:
                fastest_ms = np.quantile(np.concatenate(of_network), 0.1)
                median_ms = statistics.median(map(statistics.median, of_network))
                cells.append(f"{fastest_ms:.2f} ({median_ms:.2f})")
        runtime = device.runtime_details()[0]
        print(f"| `{device.profile.name}` | {runtime} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
