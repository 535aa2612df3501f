from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import valid_graphs
from fake_cuda import V100, FakeCudaDevice, FakeLayer, make_cuda
from torch import nn

from hwnas.devices.base import Device
from hwnas.devices.cuda import nvml
from hwnas.devices.cuda.calls import CudaLayer, Gpu
from hwnas.devices.cuda.device import BLOCK, CudaDevice
from hwnas.devices.cuda.kernels import check_kernels
from hwnas.errors import DeadlineError, DeviceError, DeviceLostError, NetworkFormError, PreparationError
from hwnas.measurement import DeviceProfile, Measurement
from hwnas.network import Network, Part
from hwnas.profiles.catalogue import load_profile, open_device, with_options
from hwnas.profiles.protocols import QUICK
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import DeviceContract


@pytest.fixture(autouse=True)
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without NVIDIA's library, unless a test brings its own."""
    import sys

    monkeypatch.setitem(sys.modules, "pynvml", None)


def small_network() -> Network:
    return DeviceContract().make_network()


class TestEagerContract(DeviceContract):
    def make_device(self) -> Device:
        return make_cuda()


class TestGraphContract(DeviceContract):
    def make_device(self) -> Device:
        return make_cuda(precision="bf16", runtime="cuda-graph", channels_last=True, cold_l2=True)


class TestOnnxRuntimeContract(DeviceContract):
    def make_device(self) -> Device:
        return make_cuda(runtime="onnxruntime-cuda", batch=2)


def test_images_of_another_shape_are_refused_and_none_is_spread_over_a_batch() -> None:
    with make_cuda(batch=2) as device:
        handle = device.prepare(small_network())
        with pytest.raises(PreparationError, match=r"takes \(2, 3, 16, 16\), and \(1, 3, 16, 16\) was given"):
            device.outputs(handle, [[np.zeros((1, 3, 16, 16), np.float32)]])
        assert device.sample(handle, runs=1, seconds=0)


@pytest.mark.parametrize("runtime", ["eager", "cuda-graph", "onnxruntime-cuda"])
def test_the_timed_input_comes_back_after_other_images(runtime: str) -> None:
    with make_cuda(runtime=runtime) as device:
        handle = device.prepare(small_network())
        before = handle.state.x.clone()
        device.outputs(handle, [[np.ones((1, 3, 16, 16), np.float32)]])
        assert torch.equal(handle.state.x, before)


def test_one_event_pair_a_run_and_one_synchronisation() -> None:
    with make_cuda() as device:
        handle = device.prepare(small_network())
        device.layer.log.clear()
        samples_ms = device.sample(handle, runs=5, seconds=0)
    assert samples_ms == [1.25] * 5
    assert device.layer.log == ["event"] * 10 + ["synchronize"]


def test_memory_is_that_of_weights_input_and_a_run_where_torch_holds_it() -> None:
    network = small_network()
    own = (*network.module().state_dict().values(), torch.empty(network.input_shape))
    with make_cuda() as device:
        found = device.prepare(network).metrics["peak_memory_bytes"]
        assert found == 234 + sum(tensor.numel() * tensor.element_size() for tensor in own)
    with make_cuda(runtime="onnxruntime-cuda") as device:
        assert "peak_memory_bytes" not in device.prepare(network).metrics


def test_runs_go_on_until_the_seconds_are_reached() -> None:
    with make_cuda() as device:
        handle = device.prepare(small_network())
        device.layer.log.clear()
        samples_ms = device.sample(handle, runs=10, seconds=0.1)
        assert len(samples_ms) == 80
        assert device.layer.log.count("synchronize") == 2
        device.layer.log.clear()
        assert len(device.sample(handle, runs=2 * BLOCK + 1, seconds=0)) == 2 * BLOCK + 1
        assert device.layer.log.count("synchronize") == 3


def test_the_l2_cache_is_overwritten_before_every_run() -> None:
    with make_cuda(cold_l2=True) as device:
        handle = device.prepare(small_network())
        flushes = []
        device._flush = lambda: flushes.append(len(device.layer.log))
        device.layer.log.clear()
        device.sample(handle, runs=3, seconds=0)
        assert "cold L2" in device.fingerprint().runtime
    assert flushes == [0, 2, 4]  # outside of every pair


def test_a_batch_is_in_the_input_the_fingerprint_and_the_throughput(tmp_path: Path) -> None:
    shapes = []

    class Seeing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(x.shape))
            return x.mean((2, 3))

    network = Network.from_module("seeing", Seeing(), (1, 3, 8, 8))
    assert network.input_shape == (1, 3, 8, 8)
    with (
        MeasurementStore(tmp_path / "m.db") as store,
        Session(make_cuda(batch=64), QUICK, store, sleep=lambda _s: None) as session,
    ):
        (result,) = dict(session.measure([network])).values()
    assert shapes[-1] == (64, 3, 8, 8)
    assert isinstance(result, Measurement)
    assert result.network_hash == network.hash
    assert result.throughput_per_s == pytest.approx(64 * 1000 / 1.25)
    assert "batch 64" in result.fingerprint.runtime


def test_a_graph_is_exported_again_for_a_batch() -> None:
    network = small_network()
    batched = network.batched(4)
    assert (batched.input_shape, batched.name) == ((4, 3, 16, 16), network.name)
    assert network.batched(1) is network
    with make_cuda(runtime="onnxruntime-cuda", batch=4) as device:
        assert device.prepare(network).network_hash == network.hash
        file = Network("file", [Part("file", onnx=network.onnx)])
        with pytest.raises(NetworkFormError, match="no torch module"):
            device.prepare(file)


def odd_file(folder: Path, *inputs: onnx.ValueInfoProto, loops: bool = False) -> Network:
    """The sum of the inputs, or a loop that never ends."""
    node = onnx.helper.make_node("Sum", [info.name for info in inputs], ["y"])
    nodes = [valid_graphs.endless(), node] if loops else [node]
    weights = [valid_graphs.constant("hostile.1", 1), valid_graphs.constant("hostile.yes", True, np.bool_)]
    model = valid_graphs.model(nodes, inputs, valid_graphs.value("y", [1, 3]), *weights)
    (folder / "odd.onnx").write_bytes(model.SerializeToString())
    return Network.from_onnx(folder / "odd.onnx")


def test_graphs_that_take_anything_but_one_float_are_told(tmp_path: Path) -> None:
    one, two = valid_graphs.value("a", [1, 3]), valid_graphs.value("b", [1, 3])
    with make_cuda(runtime="onnxruntime-cuda") as device:
        device.prepare(odd_file(tmp_path, one))
        with pytest.raises(PreparationError, match=r"takes a tensor\(float\) \[1, 3\], b tensor\(float\)"):
            device.prepare(odd_file(tmp_path, one, two))
        double = valid_graphs.value("a", [1, 3], onnx.TensorProto.DOUBLE)
        graph = odd_file(tmp_path, one)
        model = onnx.load_model_from_string(graph.onnx())
        model.graph.input[0].CopyFrom(double)
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        (tmp_path / "double.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(PreparationError, match=r"takes a tensor\(double\)"):
            device.prepare(Network.from_onnx(tmp_path / "double.onnx"))


def test_a_graph_that_never_ends_is_ended(tmp_path: Path) -> None:
    with make_cuda(runtime="onnxruntime-cuda") as device:
        device.deadline_s = 2.0
        with pytest.raises(DeadlineError, match="took longer than 2 s on"):
            device.prepare(odd_file(tmp_path, valid_graphs.value("a", [1, 3]), loops=True))
        assert device.prepare(small_network())
    assert make_cuda(runtime="eager").deadline_s is None


def test_precision_and_memory_format_reach_the_module() -> None:
    seen = []

    class Seeing(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((x.dtype, self.weight.dtype, x.is_contiguous(memory_format=torch.channels_last)))
            return super().forward(x)

    network = Network.from_module("seeing", Seeing(3, 4, 3), (1, 3, 8, 8))
    with make_cuda("fp16", channels_last=True) as device:
        handle = device.prepare(network)
        assert device.fingerprint().precision == "fp16"
        assert "channels last" in device.fingerprint().runtime
    assert seen[-1] == (torch.float16, torch.float16, True)
    assert handle.placement == {"eager": {"Seeing": 1}}


def test_tf32_is_off_while_the_device_is_open_and_put_back_afterwards() -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.allow_tf32, cudnn.benchmark)
    with make_cuda():
        assert (cudnn.allow_tf32, cudnn.benchmark) == (False, True)
    assert (cudnn.allow_tf32, cudnn.benchmark) == before


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), PreparationError, "does not fit .* fix: .*--batch"),
        (
            RuntimeError("CUDA error: an illegal memory access\nmore"),
            DeviceLostError,
            "illegal memory access",
        ),
        (RuntimeError("expected 4D input"), PreparationError, "eager cannot run .*: expected 4D input"),
    ],
)
def test_failures_of_the_gpu(error: Exception, raised: type[Exception], said: str) -> None:
    with make_cuda() as device:
        handle = device.prepare(small_network())
        device.layer.broken = error
        with pytest.raises(raised, match=f"(?s){said}"):
            device.sample(handle, runs=1, seconds=0)
        device.layer.broken = None


def opened(layer: type[FakeLayer], **options: Any) -> None:
    class OtherDevice(FakeCudaDevice):
        layer_class = layer

    profile = DeviceProfile(name="v100", device="cuda", description="", options=options)
    with OtherDevice(profile):
        pass


def fake(**attributes: Any) -> type[FakeLayer]:
    return type("Layer", (FakeLayer,), attributes)


@pytest.mark.parametrize(
    ("layer", "options", "cause", "fix"),
    [
        (fake(cuda_version=lambda _: None), {}, "built without CUDA", "pip install"),
        (fake(count=lambda _: 0), {}, "no NVIDIA GPU that torch can reach", "nvidia-smi"),
        (fake(), {"target": "3"}, "no GPU 3, only 0 to 0", "--device cuda:0"),
        (fake(), {"chip": "V100"}, "is for V100, GPU 0 is NVIDIA A100", "any_gpu=true"),
        (fake(found=V100), {"chip": "V100"}, "no kernels for Tesla V100.*sm_70", "torch<=2.10"),
        (fake(), {"runtime": "tensorrt"}, "no TensorrtExecutionProvider", "pip .*onnxruntime-gpu tensorrt"),
        (fake(providers=lambda _: []), {"runtime": "onnxruntime-cuda"}, "not installed", "onnxruntime-gpu"),
    ],
)
def test_a_gpu_that_cannot_be_used(layer: Any, options: dict[str, Any], cause: str, fix: str) -> None:
    with pytest.raises(DeviceError, match=cause) as refusal:
        opened(layer, **options)
    assert re.search(fix, refusal.value.fix)


@pytest.mark.parametrize("call", ["gpu", "new_stream", "configure"])
def test_a_gpu_that_fails_while_it_is_opened_is_explained(call: str, pynvml: FakeNvml) -> None:
    """Held in exclusive mode, say: what was opened until then is closed, and the lock is free."""

    def fail(_layer: FakeLayer) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nmore")

    tf32 = torch.backends.cudnn.allow_tf32
    with pytest.raises(DeviceError, match=r"GPU 0 cannot be used: CUDA error: .* unavailable\n") as refusal:
        opened(fake(**{call: fail}))
    assert "nvidia-smi" in refusal.value.fix
    assert (pynvml.open, torch.backends.cudnn.allow_tf32) == (0, tf32)
    opened(fake())


def test_an_old_chip_is_refused_before_cudnn_refuses_it() -> None:
    """CuDNN's own complaint names no version to install."""

    def too_new(_layer: FakeLayer) -> str:
        raise RuntimeError("cuDNN version 92600 is not compatible with devices with SM < 7.5.")

    with pytest.raises(DeviceError, match="no kernels for Tesla V100") as refusal:
        opened(fake(found=V100, cudnn_version=too_new), chip="V100")
    assert "torch<=2.10" in refusal.value.fix


def test_a_full_gpu_is_explained_and_tf32_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    tf32 = torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(DeviceError, match=r"GPU 0 cannot be used: CUDA out of memory\."):
        opened(fake(), cold_l2=True)
    assert torch.backends.cudnn.allow_tf32 == tf32


def test_no_number_of_networks_makes_torch_run_one_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import config

    compiled: list[object] = []

    def backend(graph: Any, _inputs: object) -> Any:
        compiled.append(graph)
        return graph.forward

    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        monkeypatch.setattr(config, limit, getattr(config, limit))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    layer, x = CudaLayer(0), torch.zeros(1, 3, 8, 8)
    for width in range(1, 13):
        layer.compile(nn.Sequential(nn.Conv2d(3, width, 3)).eval())(x)
    assert len(compiled) == 12


def test_sessions_of_onnx_runtime_neither_fall_back_nor_leave_our_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime as ort

    asked: list[Any] = []
    monkeypatch.setattr(ort, "InferenceSession", lambda *given, **named: asked.append((given, named)))
    stream = SimpleNamespace(cuda_stream=4711)
    layer = CudaLayer(1)
    layer.onnx_session(b"", "onnxruntime-cuda", "fp16", True, stream)
    layer.onnx_session(b"", "tensorrt", "int8", False, stream)
    for given, named in asked:
        assert named["enable_fallback"] == 0
        assert given[1].get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        assert {options["user_compute_stream"] for _, options in named["providers"]} == {"4711"}
        assert {options["device_id"] for _, options in named["providers"]} == {"1"}
    (cuda,), (tensorrt, behind) = (named["providers"] for _, named in asked)
    assert (cuda[1]["use_tf32"], cuda[1]["prefer_nhwc"]) == ("0", "1")
    assert (tensorrt[0], behind[0]) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert (tensorrt[1]["trt_fp16_enable"], tensorrt[1]["trt_int8_enable"]) == ("False", "True")


def test_tensorrt_gets_symmetric_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    given: list[bytes] = []
    plain = FakeLayer.onnx_session

    def session(layer: FakeLayer, content: bytes, *rest: Any) -> Any:
        given.append(content)
        return plain(layer, content, *rest)

    monkeypatch.setattr(FakeLayer, "onnx_session", session)
    monkeypatch.setattr(FakeLayer, "providers", lambda _: ["TensorrtExecutionProvider"])
    network = small_network()
    with make_cuda("int8", runtime="tensorrt", batch=2) as device:
        with pytest.raises(NetworkFormError, match="int8 needs calibration images"):
            device.prepare(network)
        images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
        device.prepare(network.calibrated(images))
    kinds = {weight.data_type for weight in onnx.load_from_string(given[0]).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert not kinds & {onnx.TensorProto.UINT8, onnx.TensorProto.INT32}


def test_any_gpu_takes_another_chip() -> None:
    opened(fake(), chip="V100", any_gpu=True)
    assert chip_of(make_cuda(chip="V100", any_gpu=True)) == "NVIDIA A100, sm_80, 108 SMs"


def chip_of(device: CudaDevice) -> str:
    with device:
        return device.fingerprint().chip


@pytest.mark.parametrize(
    ("capability", "architectures", "fix"),
    [
        ((8, 0), ["sm_80"], None),
        ((8, 9), ["sm_80", "sm_90"], None),  # runs what was made for 8.0
        ((8, 6), ["sm_75", "sm_80"], None),
        ((8, 9), ["sm_86"], None),
        ((8, 6), ["sm_75", "sm_89"], "pip install --upgrade torch"),
        ((7, 0), ["sm_75", "sm_80"], "pip install 'torch<=2.10', or .* CUDA 12.6, .* up to 2.14"),
        ((7, 2), ["sm_75", "compute_80"], "pip install 'torch<=2.10', .*"),
        ((6, 1), ["sm_75", "sm_80"], "pip install 'torch<=2.7', .*"),
        ((6, 1), ["sm_70", "sm_80"], "pip install 'torch<=2.7', .*"),
        ((12, 0), ["sm_80", "sm_90"], "pip install --upgrade torch"),
        ((12, 0), ["sm_80", "compute_90"], None),  # compiled on the spot
        ((12, 0), ["sm_80", "compute_90a"], "pip install --upgrade torch"),
        ((9, 0), ["sm_90a"], None),
        ((12, 1), ["sm_90a", "sm_120"], None),
        ((12, 1), ["sm_90", "sm_120a"], "pip install --upgrade torch"),
        ((10, 3), ["sm_100f"], None),
        ((12, 0), ["compute_100f"], "pip install --upgrade torch"),
        ((10, 0), ["sm_90", "sm_103"], "pip install --upgrade torch"),
        ((3, 5), ["sm_75"], "take another GPU: .*"),
    ],
)
def test_kernels(capability: tuple[int, int], architectures: list[str], fix: str | None) -> None:
    gpu = Gpu(name="GPU", uuid="", capability=capability, processors=1, l2_bytes=0)
    if fix is None:
        check_kernels(gpu, architectures, "torch 2.15.0")
        return
    with pytest.raises(DeviceError, match=r"installed torch 2\.15\.0 has no kernels for GPU") as refusal:
        check_kernels(gpu, architectures, "torch 2.15.0")
    assert re.fullmatch(fix, refusal.value.fix)


@pytest.mark.parametrize(
    ("precision", "options", "named"),
    [
        ("int8", {"runtime": "eager"}, "eager has no int8"),
        ("int8", {"runtime": "onnxruntime-cuda"}, "onnxruntime-cuda has no int8"),
        ("bf16", {"runtime": "tensorrt"}, "tensorrt has no bf16"),
        ("fp32", {"batch": 0}, "batch is 0"),
        ("fp32", {"runtime": "tvm"}, "runtime is 'tvm'"),
        ("fp32", {"target": "first"}, "'first' is no index"),
        ("fp32", {"channels_last": 1}, "channels_last is 1"),
    ],
)
def test_wrong_profiles_are_named(precision: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(DeviceError, match=named):
        make_cuda(precision, **options)


def test_an_index_behind_the_colon() -> None:
    profile = load_profile("cuda-fp16:2")
    assert (profile.name, profile.precision) == ("cuda-fp16:2", "fp16")
    device = open_device(with_options(profile, batch=32, any_gpu=None))
    assert isinstance(device, CudaDevice)
    assert (device.layer.index, device.runtime.batch, device.runtime.channels_last) == (2, 32, True)


class FakeNvml(SimpleNamespace):
    """The functions of pynvml that are used, with what a GPU answers."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_PERF_POLICY_THERMAL = "sm", "mem", 0, 1

    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.open = 0
        self.answers = {
            "SystemGetDriverVersion": "580.65",
            "DeviceGetHandleByUUID": "handle",
            "DeviceGetEnforcedPowerLimit": 300_000,
            "DeviceGetClockInfo": 1380,
            "DeviceGetTemperature": 61,
            "DeviceGetPowerUsage": 123_456,
            "DeviceGetCurrentClocksThrottleReasons": 0x4,
            "DeviceGetViolationStatus": SimpleNamespace(violationTime=7),
            "DeviceGetComputeRunningProcesses": ["ours"],
            **answers,
        }

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def __getattr__(self, name: str) -> Any:
        answer = self.answers[name.removeprefix("nvml")]

        def ask(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


@pytest.fixture
def pynvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    import sys

    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_what_nvml_tells(pynvml: FakeNvml) -> None:
    with make_cuda() as device:
        conditions, fingerprint = device.conditions(), device.fingerprint()
    assert (fingerprint.driver, fingerprint.power_mode) == ("NVIDIA 580.65", "300 W")
    assert conditions.clocks_mhz == {"sm": 1380.0, "memory": 1380.0}
    assert (conditions.temperatures_c, conditions.power_w) == ({"gpu": 61.0}, {"gpu": 123.456})
    assert (conditions.limits, conditions.throttled) == (("power cap",), False)
    assert conditions.other_processes == 0
    assert pynvml.open == 0


def test_heat_is_throttling_now_and_since_the_last_look(pynvml: FakeNvml) -> None:
    with make_cuda() as device:
        pynvml.answers["DeviceGetCurrentClocksThrottleReasons"] = 0x40 | 0x1
        conditions = device.conditions()
        assert (conditions.throttled, conditions.limits) == (True, ("hardware thermal slowdown",))
        pynvml.answers["DeviceGetCurrentClocksThrottleReasons"] = 0
        pynvml.answers["DeviceGetViolationStatus"] = SimpleNamespace(violationTime=8)
        assert device.conditions().throttled is True
        assert device.conditions().throttled is False


def test_another_process_on_the_gpu_is_told(pynvml: FakeNvml, caplog: pytest.LogCaptureFixture) -> None:
    pynvml.answers["DeviceGetComputeRunningProcesses"] = ["ours", "theirs", "theirs"]
    with caplog.at_level(logging.WARNING), make_cuda() as device:
        assert device.conditions().other_processes == 2
    assert "2 other processes use NVIDIA A100: latencies will suffer" in caplog.text


def test_an_nvml_that_does_not_even_list_us_tells_nothing_of_others(pynvml: FakeNvml) -> None:
    pynvml.answers["DeviceGetComputeRunningProcesses"] = []
    with make_cuda() as device:
        assert device.conditions().other_processes is None


def test_what_nvml_does_not_tell_is_unknown(pynvml: FakeNvml) -> None:
    for question in pynvml.answers:
        if question.startswith("DeviceGet") and question != "DeviceGetHandleByUUID":
            pynvml.answers[question] = FakeNvml.NVMLError("Not Supported")
    with make_cuda() as device:
        conditions = device.conditions()
        assert device.fingerprint().power_mode == "default"
    assert (conditions.throttled, conditions.other_processes, conditions.clocks_mhz) == (None, None, {})


def test_without_nvml_the_device_works_and_says_what_to_install(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), make_cuda() as device:
        assert device.fingerprint().driver == "unknown"
        assert device.conditions().throttled is None
    assert "pip install 'hwnas[cuda]'" in caplog.text


def test_a_gpu_that_nvml_does_not_know(pynvml: FakeNvml, caplog: pytest.LogCaptureFixture) -> None:
    pynvml.answers["DeviceGetHandleByUUID"] = FakeNvml.NVMLError("Not Found")
    with caplog.at_level(logging.WARNING), make_cuda():
        pass
    assert "NVML says Not Found" in caplog.text
    assert pynvml.open == 0


def test_a_power_mode_that_the_gpu_is_not_in_is_refused(pynvml: FakeNvml) -> None:
    with pytest.raises(DeviceError, match="asks for power mode 250 W, the GPU's limit is 300 W") as refusal:
        make_cuda(power_mode="250 W").__enter__()
    assert refusal.value.fix == "sudo nvidia-smi --id=GPU-0-2 --power-limit=250"
    assert pynvml.open == 0
    with make_cuda(power_mode="300 W"):
        pass


def test_throttling_bits_have_names() -> None:
    named = 0
    for bit in nvml.LIMITS:
        named |= bit
    assert nvml.THROTTLING & ~named == 0
