"""EfficientNet-B0 on NVIDIA GPU 0 in each runtime: events, wall clock, torch.utils.benchmark.

python benchmarks/gpu_latency.py [--seconds 1]

The table is for `docs/devices.md`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from hwnas.devices.cuda.device import CudaDevice
from hwnas.devices.cuda.runtimes import PRECISIONS, TORCH_RUNTIMES
from hwnas.errors import HwnasError
from hwnas.measurement import DeviceProfile, Precision, spread
from hwnas.network import Network
from hwnas.networks.find import find_network

BATCHES, REPEATS = (1, 128), 5
COLUMNS = (
    "runtime", "precision", "batch", "events ms", "spread of 5", "images/s", "wall clock ms",
    "torch.utils.benchmark ms",
)  # fmt: skip


def main() -> None:
    """Print a row for each runtime, precision and batch; a combination that is refused says why."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of warm-up, and of each repeat")
    seconds = parser.parse_args().seconds
    if not torch.cuda.is_available():
        print("no GPU: torch reaches no NVIDIA GPU on this machine, so there is nothing to measure")
        return
    network = find_network("efficientnet_b0")
    with make_device("eager", "fp32", 1) as device:
        print(f"{device.fingerprint().chip}; {device.fingerprint().driver}; {device.fingerprint().runtime}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for runtime, precisions in PRECISIONS.items():
        for precision in precisions:
            for batch in BATCHES:
                try:
                    cells = measure(network, runtime, precision, batch, seconds)
                except HwnasError as error:
                    cells = [error.cause, "", "", "", ""]
                print(f"| {' | '.join([runtime, precision, str(batch), *cells])} |", flush=True)


def make_device(runtime: str, precision: Precision, batch: int) -> CudaDevice:
    """GPU 0; lower precisions of the torch runtimes are in channels last, as in the catalogue."""
    options: dict[str, str | int | float | bool] = {
        "runtime": runtime,
        "batch": batch,
        "channels_last": runtime in TORCH_RUNTIMES and precision != "fp32",
    }
    return CudaDevice(
        DeviceProfile(name="cuda", device="cuda", description="GPU 0", precision=precision, options=options)
    )


def measure(network: Network, runtime: str, precision: Precision, batch: int, seconds: float) -> list[str]:
    """The cells of one row."""
    with make_device(runtime, precision, batch) as device:
        handle = device.prepare(network)
        device.sample(handle, runs=1, seconds=seconds)
        repeats_ms = [device.sample(handle, runs=50, seconds=seconds) for _ in range(REPEATS)]
        medians_ms = [statistics.median(samples_ms) for samples_ms in repeats_ms]
        median_ms = statistics.median(medians_ms)
        runs = len(repeats_ms[-1])
        start_s = time.perf_counter()
        device.sample(handle, runs=runs, seconds=0)  # ends with a synchronisation
        wall_ms = (time.perf_counter() - start_s) / runs * 1000
        theirs_ms = by_torch(device, network, seconds) if runtime == "eager" else None
    return [
        f"{median_ms:.3f}",
        f"{spread(medians_ms):.1%}",
        f"{1000 * batch / median_ms:.0f}",
        f"{wall_ms:.3f}",
        "" if theirs_ms is None else f"{theirs_ms:.3f}",
    ]


def by_torch(device: CudaDevice, network: Network, seconds: float) -> float:
    """The same module by torch's own timer, which synchronises around a block of runs; milliseconds."""
    from torch.utils import benchmark

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = dtypes[device.profile.precision]
    memory = torch.channels_last if device.runtime.channels_last else torch.contiguous_format
    to: dict[str, Any] = {"device": device.layer.place, "dtype": dtype, "memory_format": memory}
    module = network.module().to(**to)
    x = torch.randn(device.runtime.batch, *network.input_shape[1:]).to(**to)
    with torch.inference_mode():
        timer = benchmark.Timer("module(x)", globals={"module": module, "x": x})
        return float(timer.blocked_autorange(min_run_time=max(seconds, 0.2)).median * 1000)


if __name__ == "__main__":
    main()
