from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from aihub_server import LoopbackHub
from qai_hub.util import session as client_session

from hwnas.devices.aihub import names
from hwnas.devices.aihub.device import AiHubDevice, read_profile
from hwnas.devices.aihub.names import Unit, nearest
from hwnas.devices.queue import QueueBusyError, QueueJob, QueueResult
from hwnas.errors import DeviceError, DeviceLostError, PreparationError
from hwnas.files import encode
from hwnas.measurement import DeviceProfile, Measurement, MeasurementFailure
from hwnas.network import Network
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.profiles.protocols import ONCE
from hwnas.profiles.queue_outputs import QueueOutputs
from hwnas.profiles.session import Session
from hwnas.profiles.store import MeasurementStore
from hwnas.testing.contract import QueueDeviceContract


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, an account there, and a client that does not wait between its own attempts."""
    hub = LoopbackHub()
    hub.start()
    hub.write_config(tmp_path / "client.ini")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
    for name, value in {"BACKOFF_FACTOR": 0, "MAX_WAIT": 0, "MAX_RETRIES": 2}.items():
        monkeypatch.setattr(client_session, name, value)
    yield hub
    hub.stop()


def make_device(precision: Any = "fp16", **options: Any) -> AiHubDevice:
    options = {
        "target": "Samsung Galaxy S24",
        "target_runtime": "qnn_context_binary",
        "compute_unit": "npu",
        "poll_s": 0.01,
        **options,
    }
    return AiHubDevice(
        DeviceProfile(
            name="aihub", device="aihub", description="a phone", precision=precision, options=options
        )
    )


class AiHubContract(QueueDeviceContract):
    def make_device(self) -> AiHubDevice:
        return make_device()


@pytest.mark.usefixtures("hub")
class TestLoopbackContract(AiHubContract):
    pass


@pytest.mark.hardware
@pytest.mark.skipif("HWNAS_AIHUB_TOKEN" not in os.environ, reason="HWNAS_AIHUB_TOKEN is not set")
class TestRealHubContract(AiHubContract):
    @pytest.fixture(autouse=True)
    def account(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        url = "https://workbench.aihub.qualcomm.com"
        token = os.environ["HWNAS_AIHUB_TOKEN"]
        text = f"[api]\napi_token = {token}\napi_url = {url}\nweb_url = {url}\nverbose = False\n"
        (tmp_path / "client.ini").write_text(text)
        monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "client.ini"))
        yield
        (tmp_path / "client.ini").unlink()  # pytest keeps the folder, and a token is a secret

    def make_device(self) -> AiHubDevice:
        return make_device(poll_s=10.0)


def test_the_hubs_message_and_the_link_are_the_reason(hub: LoopbackHub) -> None:
    contract = TestLoopbackContract()
    broken = contract.make_broken_network()
    with make_device() as device, pytest.raises(PreparationError) as refusal:
        contract.result_of(device, device.submit(contract.make_job(broken), broken))
    assert refusal.value.cause == (
        "AI Hub could not compile the network: Unsupported ONNX operator: NoSuchOperator"
    )
    assert refusal.value.fix == f"see http://127.0.0.1:{hub.port}/jobs/j0/"


def test_a_profile_job_that_fails(hub: LoopbackHub) -> None:
    hub.profile_failure = "Device provisioning failed"
    contract = TestLoopbackContract()
    network = contract.make_network()
    with make_device() as device, pytest.raises(PreparationError, match="run the network: Device prov"):
        contract.result_of(device, device.submit(contract.make_job(network), network))


def one_result(device: AiHubDevice) -> tuple[QueueJob, QueueResult]:
    contract = TestLoopbackContract()
    network = contract.make_network()
    return contract.result_of(device, device.submit(contract.make_job(network), network))


def test_what_the_hub_tells_in_our_units(hub: LoopbackHub) -> None:
    with make_device() as device:
        job, result = one_result(device)
        fingerprint = device.fingerprint()
    assert result.samples_ms == (1.5, 1.4, 1.6)
    assert result.metrics == {"first_load_ms": 250.0, "warm_load_ms": 40.0, "peak_memory_bytes": 3_000_000.0}
    assert result.placement == {"NPU": {"Conv2d": 1, "Relu": 1}, "CPU": {"FullyConnected": 1}}
    assert encode(result.layers[0]) == {
        "name": "conv1", "operator": "Conv2d", "unit": "NPU", "time_ms": 0.07,
    }  # fmt: skip
    assert job.url == f"http://127.0.0.1:{hub.port}/jobs/j1/"
    assert fingerprint.chip == "Samsung Galaxy S24, qualcomm-snapdragon-8gen3"
    assert (fingerprint.os_build, fingerprint.driver) == ("android 14", "QAIRT 2.28.0")
    assert fingerprint.runtime == "qnn_context_binary on npu"


def test_options_and_graph_follow_the_profile(hub: LoopbackHub) -> None:
    with make_device() as device:
        one_result(device)
    with make_device("fp32", target_runtime="tflite", compute_unit="gpu") as device:
        one_result(device)
    with make_device("fp16", target_runtime="tflite", compute_unit="npu") as device:
        one_result(device)
    options = [job.options for job in hub.jobs("compile_job")]
    assert options == [
        "--target_runtime qnn_context_binary --compute_unit npu --quantize_full_type float16",
        "--target_runtime tflite --compute_unit gpu",
        "--target_runtime tflite --compute_unit npu",
    ]
    assert [job.options for job in hub.jobs("inference_job")] == [
        "--compute_unit npu",
        "--compute_unit gpu",
        "--compute_unit npu",
    ]
    assert all(job.is_profiling_on for job in hub.jobs("inference_job"))
    # The newest OS of that name is pinned.
    assert {job.device.os for job in hub.jobs("inference_job")} == {"14"}
    assert hub.uploads["m0"] == TestLoopbackContract().make_network().onnx()


def test_a_repeat_is_not_compiled_again(hub: LoopbackHub, tmp_path: Path) -> None:
    from hwnas.testing.contract import SHORT

    network = TestLoopbackContract().make_network()
    with (
        MeasurementStore(tmp_path / "measurements.db") as store,
        Session(make_device(), SHORT, store, sleep=lambda _s: None) as session,
    ):
        (result,) = dict(session.measure([network])).values()
    assert isinstance(result, Measurement)
    assert len(result.repeats_ms) == 2
    assert (len(hub.jobs("compile_job")), len(hub.jobs("inference_job"))) == (1, 2)


def test_nothing_but_data_goes_to_stdout(hub: LoopbackHub, capsys: pytest.CaptureFixture[str]) -> None:
    with make_device() as device:
        one_result(device)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text", [None, "", "[api]\napi_url = x\n", "no section", "[api]\nverbose = perhaps\n"]
)
def test_without_a_token_one_message_tells_how_to_get_one(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client.ini"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(path))
    with pytest.raises(DeviceError, match=f"needs an API token: {path}") as refusal, make_device():
        pass
    assert "Settings > API Token" in refusal.value.fix
    assert "qai-hub configure --api_token TOKEN" in refusal.value.fix


def test_a_bad_token_says_the_same(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.write_config(tmp_path / "client.ini", token="old")  # noqa: S106
    with pytest.raises(DeviceError, match="refuses the API token") as refusal, make_device():
        pass
    assert "qai-hub configure --api_token TOKEN" in refusal.value.fix


def test_a_token_that_is_revoked_in_a_session_ends_it(hub: LoopbackHub) -> None:
    with make_device() as device:
        hub.token = "another"  # noqa: S105
        with pytest.raises(DeviceLostError, match="refuses the API token"):
            one_result(device)


def test_an_unknown_name_gives_the_nearest_by_chipset(hub: LoopbackHub) -> None:
    with pytest.raises(DeviceError) as refusal, make_device(target="Samsung Galaxy S10"):
        pass
    assert refusal.value.cause == (
        "AI Hub has no device 'Samsung Galaxy S10'; the nearest by chipset are Google Pixel 4 (855), "
        "Samsung Galaxy Tab S7 (865+), Samsung Galaxy S21 (888), Samsung Galaxy S22 Ultra 5G (8gen1), "
        "Samsung Galaxy S23 (8gen2)"
    )
    assert "--device 'aihub:Google Pixel 4'" in refusal.value.fix


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Samsung Galaxy S20 FE", "Samsung Galaxy Tab S7"),
        ("Samsung Galaxy S20+", "Samsung Galaxy Tab S7"),
        ("Samsung Galaxy S10e", "Google Pixel 4"),
        ("snapdragon 8 gen 2", "Samsung Galaxy S23"),
        ("OnePlus 9", "Samsung Galaxy S21"),
        ("Pixel 4", "Google Pixel 4"),
        ("Gallaxy S23", "Samsung Galaxy S23"),
        ("Samsung Galaxy S22 Ultra", "Samsung Galaxy S22 Ultra 5G"),
    ],
)
def test_nearest(hub: LoopbackHub, asked: str, found: str) -> None:
    from aihub_server import DEVICES

    units = [
        Unit(name=name, os=os, attributes=(f"chipset:qualcomm-snapdragon-{chipset}",))
        for name, os, chipset in DEVICES
    ]
    assert nearest(asked, units)[0].name == found


def test_a_name_of_unknown_chipset_gives_the_nearest_by_name(hub: LoopbackHub) -> None:
    with pytest.raises(DeviceError, match=r"no device 'Pixel XV'; the nearest by name are Google Pixel 4 "):
        make_device(target="Pixel XV").__enter__()


def test_every_known_phone_has_a_known_chipset() -> None:
    assert set(names.KNOWN_PHONES.values()) <= set(names.GENERATIONS)


def test_upper_and_lower_case_are_alike(hub: LoopbackHub) -> None:
    with make_device(target=" samsung galaxy s24 ") as device:
        assert device.fingerprint().chip.startswith("Samsung Galaxy S24,")


def test_a_rate_limit_is_told_as_one(hub: LoopbackHub) -> None:
    with make_device() as device:
        hub.faults["POST", "jobs"] = [429] * 9
        with pytest.raises(QueueBusyError, match="limits the rate of requests: Request was throttled"):
            one_result(device)
        assert len(hub.faults["POST", "jobs"]) == 6  # the client itself tried three times


def test_the_client_obeys_retry_after_where_it_looks(hub: LoopbackHub) -> None:
    with make_device() as device:
        hub.retry_after = "1"
        hub.faults["GET", "jobs"] = [429]
        start_s = time.monotonic()
        one_result(device)
        assert time.monotonic() - start_s >= 1


@pytest.mark.parametrize("status", [500, 503, 0])
def test_an_outage_is_told_as_one(hub: LoopbackHub, status: int) -> None:
    with make_device() as device:
        hub.faults["POST", "models"] = [status] * 30
        with pytest.raises(QueueBusyError, match=r"cannot be reached: (Qualcomm AI Hub|Could not connect)"):
            one_result(device)


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {("POST", "jobs"): [429] * 4, ("POST", "datasets"): [503] * 4},
        {("GET", "jobs"): [200, 500, 500, 500, 500, 503, 200]},
        {("GET", "datasets"): [500] * 4},
    ],
)
def test_outputs_come_for_all_images_whatever_the_hub_does_meanwhile(
    hub: LoopbackHub, faults: dict[tuple[str, str], list[int]]
) -> None:
    """One compilation, and one job for each set of images."""
    hub.looks = 4
    network = TestLoopbackContract().make_network()
    session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    numbers = np.random.default_rng(0).standard_normal((5, 1, 3, 16, 16)).astype(np.float32)
    pauses: list[float] = []
    with make_device() as device:
        hub.faults.update(faults)
        ask = QueueOutputs(device, network, pauses.append)
        found = [*ask([[images] for images in numbers[:3]]), *ask([[images] for images in numbers[3:]])]
    for images, (given,) in zip(numbers, found, strict=True):
        (expected,) = session.run(None, {"input": images})
        assert np.allclose(given, expected, atol=1e-6)
    assert (len(hub.jobs("compile_job")), len(hub.jobs("inference_job"))) == (1, 2)
    assert not any(job.is_profiling_on for job in hub.jobs("inference_job"))
    assert pauses


def test_a_hub_that_stays_away_is_given_up(hub: LoopbackHub) -> None:
    network, image = TestLoopbackContract().make_network(), np.zeros((1, 3, 16, 16), np.float32)
    with make_device() as device:
        hub.faults["POST", "datasets"] = [503] * 10_000
        with pytest.raises(DeviceLostError, match="cannot be reached"):
            QueueOutputs(device, network, lambda seconds: None)([[image]])


def test_a_hub_that_finds_a_job_and_never_gives_its_outputs_is_given_up(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: object) -> str:
        raise ConnectionAbortedError

    monkeypatch.setattr(hub, "_infer", broken)
    network, image = TestLoopbackContract().make_network(), np.zeros((1, 3, 16, 16), np.float32)
    with make_device() as device, pytest.raises(DeviceLostError, match="for 60 minutes"):
        QueueOutputs(device, network, lambda seconds: None)([[image]])


def test_a_failed_inference_is_told(hub: LoopbackHub) -> None:
    network, image = TestLoopbackContract().make_network(), np.zeros((1, 3, 16, 16), np.float32)
    hub.profile_failure = "out of memory"
    with make_device() as device, pytest.raises(PreparationError, match=r"could not run .*out of memory"):
        QueueOutputs(device, network, lambda seconds: None)([[image]])


def test_an_unreachable_hub_is_told_before_anything_starts(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.port = 1
    hub.write_config(tmp_path / "client.ini")
    with (
        pytest.raises(DeviceError, match="cannot be reached: Could not connect to Qualcomm AI Hub"),
        make_device(),
    ):
        pass


def measure(hub: LoopbackHub, store: MeasurementStore, networks: list[Network], sleep: Any) -> dict[str, Any]:
    with Session(make_device(max_in_flight=2), ONCE, store, sleep=sleep) as session:
        return dict(session.measure(networks))


def networks_of(count: int) -> list[Network]:
    from torch import nn

    return [
        Network.from_module(f"n{i}", nn.Sequential(nn.Conv2d(3, 4 + i, 3)), (1, 3, 8, 8))
        for i in range(count)
    ]


def test_a_session_survives_limits_lost_answers_and_a_restart(hub: LoopbackHub, tmp_path: Path) -> None:
    """Every kind of trouble at once, and still each network is compiled and profiled exactly once."""
    hub.faults["POST", "jobs"] = [200, 429, 429, 429, 429, 200]
    hub.faults["GET", "jobs"] = [200, 500, 500, 500, 500, 200, 200, 200, 503]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            hub.stop()
        if len(pauses) == 1500:
            hub.start()

    with MeasurementStore(tmp_path / "measurements.db") as store:
        results = measure(hub, store, networks_of(3), sleep)
    assert all(isinstance(result, Measurement) for result in results.values())
    assert len(pauses) > 1500
    assert (len(hub.jobs("compile_job")), len(hub.jobs("inference_job"))) == (3, 3)


def test_a_job_that_the_hub_has_forgotten_is_submitted_again(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.held = {"compile_job"}

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with MeasurementStore(tmp_path / "measurements.db") as store:
        with pytest.raises(KeyboardInterrupt):
            measure(hub, store, networks_of(1), interrupt)
        hub.submitted.clear()
        hub.held = set()
        (result,) = measure(hub, store, networks_of(1), lambda _s: None).values()
    assert isinstance(result, Measurement)


def test_a_failed_job_is_a_failed_network_and_the_others_go_on(hub: LoopbackHub, tmp_path: Path) -> None:
    good = networks_of(2)
    broken = TestLoopbackContract().make_broken_network()
    with MeasurementStore(tmp_path / "measurements.db") as store:
        results = measure(hub, store, [good[0], broken, good[1]], lambda _s: None)
    assert [type(result) for result in results.values()] == [Measurement, MeasurementFailure, Measurement]
    assert "Unsupported ONNX operator: NoSuchOperator (see http" in results[broken.hash].reason


def test_a_refused_submission_is_tried_again_by_the_next_run(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults["POST", "jobs"] = [403]
    with MeasurementStore(tmp_path / "measurements.db") as store:
        (failure,) = measure(hub, store, networks_of(1), lambda _s: None).values()
        (result,) = measure(hub, store, networks_of(1), lambda _s: None).values()
    assert failure.reason.startswith("AI Hub refuses to compile n0: Request was throttled (")
    assert failure.transient
    assert isinstance(result, Measurement)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"target_runtime": "coreml"}, "target_runtime is 'coreml'"),
        ({"compute_unit": "tpu"}, "compute_unit is 'tpu'"),
        ({"max_in_flight": 0}, "above zero"),
        ({"max_in_flight": "5"}, "it must be a int"),
        ({"threads": 1}, "no option 'threads'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(DeviceError, match=named):
        make_device(**options)


def test_fp32_on_an_npu_is_refused() -> None:
    with pytest.raises(DeviceError, match="NPUs have no fp32"):
        make_device("fp32")


def test_fp16_that_would_be_fp32_is_refused() -> None:
    with pytest.raises(DeviceError, match="onnx on cpu keeps fp32") as refusal:
        make_device("fp16", target_runtime="onnx", compute_unit="cpu")
    assert "qnn_context_binary" in refusal.value.fix


def test_bf16_is_refused() -> None:
    with pytest.raises(DeviceError, match="takes no bf16"):
        make_device("bf16")


def test_a_name_behind_the_colon_chooses_the_phone() -> None:
    profile = load_profile("aihub:Samsung Galaxy S23 / Ultra")
    assert profile.name == "aihub:Samsung Galaxy S23 / Ultra"
    device = open_device(profile)
    assert isinstance(device, AiHubDevice)
    assert device.target == "Samsung Galaxy S23 / Ultra"


def test_a_profile_that_lacks_what_it_must_tell() -> None:
    with pytest.raises(PreparationError, match="a profile without 'execution_summary'"):
        read_profile({})
    summary = {"estimated_inference_time": 800, "first_load_time": None}
    result = read_profile({"execution_summary": summary, "execution_detail": []})
    assert (result.samples_ms, result.metrics) == ((0.8,), {})


@pytest.fixture
def storage(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's uploads go by S3's protocol, also to the loopback interface, without repetition."""
    hub.hands_out_credentials = True
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{hub.port}")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")


@pytest.mark.usefixtures("storage")
def test_uploads_by_credentials(hub: LoopbackHub) -> None:
    with make_device() as device:
        one_result(device)
    assert hub.uploads["m0"] == TestLoopbackContract().make_network().onnx()


@pytest.mark.usefixtures("storage")
def test_a_storage_that_refuses_is_told_as_an_outage(hub: LoopbackHub) -> None:
    hub.faults["PUT", "blob"] = [403]
    with make_device() as device, pytest.raises(QueueBusyError, match=r"storage cannot be reached: .*403"):
        one_result(device)
