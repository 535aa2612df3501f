"""What runs on an NVIDIA GPU: `pytest -m hardware tests/hardware/test_cuda.py`."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
import torch

from hwnas.devices.base import Device
from hwnas.devices.cuda.device import CudaDevice
from hwnas.devices.cuda.runtimes import PRECISIONS
from hwnas.errors import DeviceError, NetworkFormError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network
from hwnas.testing.contract import DeviceContract

pytestmark = [
    pytest.mark.hardware,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU that torch can reach"),
]


def make_cuda(precision: Any = "fp32", **options: Any) -> CudaDevice:
    profile = DeviceProfile(
        name="cuda", device="cuda", description="GPU 0", precision=precision, options=options
    )
    return CudaDevice(profile)


def b0() -> Network:
    from hwnas.networks.find import find_network

    return find_network("efficientnet_b0")


def median_ms(device: CudaDevice, network: Network, seconds: float = 2.0) -> float:
    handle = device.prepare(network)
    device.sample(handle, runs=1, seconds=1.0)
    return statistics.median(device.sample(handle, runs=100, seconds=seconds))


class TestCudaContract(DeviceContract):
    def make_device(self) -> Device:
        return make_cuda()


@pytest.mark.parametrize("runtime", ["eager", "cuda-graph"])
def test_memory_is_that_of_weights_and_a_batch(runtime: str) -> None:
    found = []
    for batch in (1, 64):
        with make_cuda(runtime=runtime, batch=batch) as device:
            found.append([device.prepare(b0()).metrics["peak_memory_bytes"] for _ in range(2)])
    weights, map_at_112 = 4 * 5_288_548, 4 * 96 * 112 * 112
    assert found[0][0] == found[0][1] > weights
    assert found[1][0] == found[1][1] > weights + 64 * map_at_112
    print(f"{runtime}: {found} bytes, twice each, batch 1 and 64")


@pytest.mark.parametrize("batch", [1, 128])
@pytest.mark.parametrize("runtime", list(PRECISIONS))
def test_b0_in_each_runtime(runtime: str, batch: int) -> None:
    for precision in PRECISIONS[runtime]:
        try:
            with make_cuda(
                precision, runtime=runtime, batch=batch, channels_last=precision != "fp32"
            ) as device:
                took_ms = median_ms(device, b0())
        except (DeviceError, NetworkFormError) as error:
            print(f"{runtime} {precision} batch {batch}: {error.cause}")
            continue
        print(f"{runtime} {precision} batch {batch}: {took_ms:.3f} ms, {1000 * batch / took_ms:.0f} images/s")
        assert took_ms > 0


def test_events_agree_with_the_wall_clock() -> None:
    with make_cuda(batch=32) as device:
        handle = device.prepare(b0())
        device.sample(handle, runs=1, seconds=1.0)
        start_s = time.perf_counter()
        samples_ms = device.sample(handle, runs=200, seconds=0)
        wall_ms = 1000 * (time.perf_counter() - start_s)
    print(f"events {sum(samples_ms):.1f} ms, wall clock {wall_ms:.1f} ms")
    assert sum(samples_ms) == pytest.approx(wall_ms, rel=0.05)


def test_agrees_with_torch_utils_benchmark() -> None:
    from torch.utils import benchmark

    network = b0()
    with make_cuda(batch=32) as device:
        ours_ms = median_ms(device, network)
        module = network.module().cuda().eval()
        x = torch.randn(32, *network.input_shape[1:], device="cuda")
        with torch.inference_mode():
            timer = benchmark.Timer("module(x)", globals={"module": module, "x": x})
            theirs_ms = timer.blocked_autorange(min_run_time=2).median * 1000
    print(f"hwnas {ours_ms:.3f} ms, torch.utils.benchmark {theirs_ms:.3f} ms")
    assert ours_ms == pytest.approx(theirs_ms, rel=0.05)


def test_spread_over_five_repeats() -> None:
    # So many images that the kernels take longer than the host needs to launch them, or the host is measured.
    with make_cuda(batch=256) as device:
        handle = device.prepare(b0())
        device.sample(handle, runs=1, seconds=1.0)
        medians = [statistics.median(device.sample(handle, runs=100, seconds=1.0)) for _ in range(5)]
    spread = (max(medians) - min(medians)) / statistics.median(medians)
    print(f"spread of 5 repeats {spread:.2%}")
    assert spread < 0.05


def test_what_the_gpu_tells() -> None:
    with make_cuda() as device:
        print(device.fingerprint())
        print(device.conditions())
        assert device.fingerprint().driver.startswith("NVIDIA ")
        assert device.conditions().other_processes is not None


def test_outputs_are_those_of_the_cpu() -> None:
    network = DeviceContract().make_network()
    x = torch.randn(1, 3, 16, 16)
    with make_cuda():
        on_gpu = network.module().cuda()(x.cuda()).cpu()
    assert torch.allclose(on_gpu, network.module()(x), atol=1e-4)
