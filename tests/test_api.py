"""The public functions: examples that run, models and data of all kinds, silence, threads."""

from __future__ import annotations

import doctest
import functools
import importlib
import inspect
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from timm.models import EfficientNet
from torch import Tensor, nn
from torch.utils.data import Dataset

import hwnas
from hwnas import api
from hwnas.compress.data.given import as_data
from hwnas.compress.data.load import load_data
from hwnas.compress.data.stored import store_data
from hwnas.errors import HwnasError, InputError
from hwnas.network import Network
from hwnas.profiles.gate.baseline import write_baseline
from hwnas.profiles.gate.report import Checked

SHORT: dict[str, Any] = {
    "preset": "quick",
    "weights": "none",
    "candidates": 2,
    "train_epochs": 1,
    "epochs": 1,
    "steps": 2,
    "batch_size": 64,
    "slice_size": 4,
    "threads": 1,
    "population": 4,
    "generations": 2,
    "finetune_epochs": 1,
}


def test_every_public_name_is_there_and_says_what_it_does() -> None:
    for name in hwnas.__all__:
        found = getattr(hwnas, name)
        assert name == "__version__" or found.__doc__


OF_A_RUN = (
    "compress",
    "open_run",
    "load",
    "Run",
    "Checkpoint",
    "Front",
    "Compression",
    "evaluate",
    "Evaluation",
)
"""Names whose examples look at a run, which that of `compress` makes."""

NAMES = sorted({*hwnas.__all__, *api.__all__} - {"__version__", "Model"})
"""What has an example; `Model` is an alias."""


def texts_of(name: str) -> dict[str, str]:
    """The docstrings of a public name and of the methods and properties that it adds as a class."""
    value = getattr(api, name, None) or getattr(hwnas, name)
    texts = {name: inspect.getdoc(value) or ""}
    if inspect.isclass(value):
        fields = getattr(value, "__dataclass_fields__", {})  # some hold functions
        kinds = (property, functools.cached_property, staticmethod, classmethod)
        texts |= {
            f"{name}.{key}": inspect.getdoc(member) or ""
            for key, member in vars(value).items()
            if key[0] != "_"
            and key not in fields
            and (inspect.isfunction(member) or isinstance(member, kinds))
        }
    return texts


def run_example(name: str) -> None:
    """Run what the docstring of a public name shows, and with what that leaves what its methods show."""
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    known: dict[str, Any] = {}
    for place, text in texts_of(name).items():
        test = parser.get_doctest(text, known, place, None, None)
        runner.run(test, clear_globs=False)
        known = test.globs
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_and_method_shows_an_example(name: str) -> None:
    for place, text in texts_of(name).items():
        assert doctest.DocTestParser().get_examples(text), f"{place} shows no example"


@pytest.mark.parametrize("name", sorted({*hwnas.__all__} - {*OF_A_RUN, "__version__"}))
def test_the_example_of_every_public_name_runs(name: str) -> None:
    run_example(name)


@pytest.mark.slow
def test_the_examples_of_runs_run(place: Path) -> None:
    for name in (*OF_A_RUN, "write_batch"):
        run_example(name)


OF_THE_COMMAND_LINE = {*api.__all__} - {*hwnas.__all__, "Model"}
"""Functions that the commands call and their results, which most users do not need; `Model` is an alias."""


@pytest.mark.parametrize("name", sorted(OF_THE_COMMAND_LINE - {"write_batch", *OF_A_RUN}))
def test_the_example_of_what_the_command_line_calls_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_example(name)


def test_the_packages_of_the_same_names_are_called_like_the_functions() -> None:
    import hwnas.compress.options
    import hwnas.devices.base

    assert [profile.name for profile in hwnas.devices()] == [profile.name for profile in api.devices()]
    for package, function in ((hwnas.compress, api.compress), (hwnas.devices, api.devices)):
        assert inspect.signature(package) == inspect.signature(function)
        assert inspect.getdoc(package) == inspect.getdoc(function)
    with pytest.raises(InputError, match="no option 'presett'"):
        hwnas.compress("resnet18", data="digits", devices="cpu", presett="quick")


def test_importing_takes_no_torch() -> None:
    code = "import sys, hwnas; hwnas.compress; print({'torch', 'onnx', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{tiny.ROOT}")
    return tmp_path


def test_a_model_of_any_kind_is_measured(place: Path) -> None:
    tinynet = importlib.import_module("tinynet")
    module = tinynet.make()
    (place / "net.onnx").write_bytes(Network.from_module("net", module, (1, 3, 32, 32)).onnx())
    shape = (3, 32, 32)
    found = [
        hwnas.profile(model, "sim-npu", input_shape=shape).latency_ms
        for model in (module, tinynet.make, "tinynet:make", place / "net.onnx", "net.onnx")
    ]
    assert found == pytest.approx([found[0]] * 5)


def test_models_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(InputError, match="does not say what it takes"):
        hwnas.profile(nn.Conv2d(3, 4, 3), "sim-npu")
    with pytest.raises(InputError, match="cannot be built again"):
        hwnas.partition(nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match="cannot be built again"):
        hwnas.profile(lambda: nn.Conv2d(3, 4, 3), "sim-npu")


class Pictures(Dataset[tuple[Tensor, int]]):
    """Random images of ten classes, as torchvision's ToTensor makes them."""

    classes = tuple("abcdefghij")

    def __init__(self, count: int = 120) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        self.images = pixels.float() / 255
        self.labels = torch.arange(count) % 10

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def test_a_dataset_and_its_arrays_are_the_same_data() -> None:
    pictures = Pictures()
    of_dataset = as_data(pictures)
    arrays = (pictures.images.mul(255).round().to(torch.uint8).numpy(), pictures.labels.numpy())
    of_arrays = as_data(arrays)
    assert of_dataset.hash == of_arrays.hash
    assert of_dataset.class_names == tuple("abcdefghij")
    assert of_arrays.class_names == tuple("0123456789")
    assert [len(part) for part in (of_dataset.train, of_dataset.val, of_dataset.test)] == [84, 12, 24]
    again = load_data(store_data(of_dataset))
    assert again.hash == of_dataset.hash
    assert (again.mean, again.std, again.class_names) == (
        of_dataset.mean,
        of_dataset.std,
        of_dataset.class_names,
    )


def test_data_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="the data are a int"):
        as_data(3)
    with pytest.raises(InputError, match="2 shapes"):
        as_data([(torch.zeros(3, 8, 8, dtype=torch.uint8), 0), (torch.zeros(3, 9, 9, dtype=torch.uint8), 1)])
    with pytest.raises(InputError, match="int32"):
        as_data((np.zeros((10, 3, 8, 8), dtype=np.int32), np.zeros(10)))


def test_damaged_stored_data_are_refused() -> None:
    name = store_data(as_data(Pictures()))
    file = Path(name.partition(":")[2]) / "images.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load_data(name)


@pytest.mark.slow
def test_a_compression_in_a_thread_is_silent_and_can_be_looked_at(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tinynet = importlib.import_module("tinynet")

    class Heard(hwnas.Progress):
        steps: set[str] = set()  # noqa: RUF012

        def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
            self.steps.add(step)

    found: list[hwnas.Run] = []
    states: list[dict[str, object]] = []

    def compress() -> None:
        torch.set_num_threads(2)
        states.append(global_state())
        found.append(
            hwnas.compress(
                tinynet.make,
                data=Pictures(),
                devices=["steady.toml", "picky.toml"],
                out="runs/a",
                speedup=[1.01],
                pick=["knee"],
                progress=Heard(),
                **SHORT,
            )
        )
        states.append(global_state())

    thread = threading.Thread(target=compress)
    thread.start()
    thread.join()
    (run,) = found
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert states[0] == states[1]
    assert {"distill", "search"} <= Heard.steps
    assert run.devices == ["picky", "steady"]
    assert run.front("steady").front
    checkpoint = run.checkpoint("steady", "speedup=1.01")
    assert checkpoint.module(allow_code=True)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert checkpoint.summary.pick == "speedup=1.01"
    assert [path.name for path in run.report("steady")] == ["report.html"]
    with pytest.raises(InputError, match="has no checkpoint steady-best"):
        run.checkpoint("steady", "best")
    again = hwnas.open_run("runs/a")
    assert [each.path for each in again.checkpoints()] == [each.path for each in run.checkpoints()]


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"input_shape": (3, 32.0, 32)}, "input_shape is (3, 32.0, 32)"),
        ({"input_shape": "3x32x32"}, "input_shape is '3x32x32'"),
        ({"input_shape": 32}, "input_shape is 32"),
        ({"input_shape": (3, -32, 32)}, "input_shape is (3, -32, 32)"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": 1.5}, "batch is 1.5"),
        ({"device": None}, "device is None"),
    ],
)
def test_arguments_that_mean_nothing_are_refused_by_name(changed: dict[str, Any], cause: str) -> None:
    with pytest.raises(InputError, match=re.escape(cause)):
        hwnas.profile(nn.Conv2d(3, 8, 3), **{"device": "sim-npu", "input_shape": (3, 32, 32), **changed})


def test_cut_points_are_found_by_no_more_runs_than_a_cut() -> None:
    def runs(find: Callable[[], object]) -> int:
        found: list[nn.Module] = []

        def note(module: nn.Module, _: object) -> None:
            found.extend([module] if isinstance(module, EfficientNet) else [])

        handle = nn.modules.module.register_module_forward_pre_hook(note)
        find()
        handle.remove()
        return len(found)

    cut = runs(lambda: hwnas.partition("mobilenetv2_050", image_size=32))
    assert runs(lambda: api.find_cuts("mobilenetv2_050", image_size=32)) == cut


def test_an_option_of_profile_that_there_is_none_of_is_told_with_those_that_are() -> None:
    with pytest.raises(InputError, match="profile has no option 'block'") as refused:
        next(api.profile_each(["mobilenetv2_050"], ["sim-npu"], block=True))
    assert "blocks" in refused.value.fix


@pytest.mark.parametrize("option", ["batch=2", "profile=2"])
def test_a_device_option_of_any_name_is_the_devices(option: str) -> None:
    network, shape = nn.Conv2d(3, 8, 3), (3, 8, 8)
    if option == "batch=2":
        hwnas.profile(network, "sim-npu", input_shape=shape, device_option=option)
    else:
        with pytest.raises(HwnasError, match="profile"):
            hwnas.profile(network, "sim-npu", input_shape=shape, device_option=option)


def test_one_device_option_needs_no_list() -> None:
    network = nn.Conv2d(3, 8, 3)
    given: dict[str, Any] = {"input_shape": (3, 8, 8), "device_option": "no_such_option=1"}
    for ask in (
        lambda: hwnas.profile(network, "sim-npu", **given),
        lambda: hwnas.compare(network, network, "sim-npu", **given),
        lambda: hwnas.check(network, baseline=network, device="sim-npu", **given),
    ):
        with pytest.raises(HwnasError, match="no_such_option"):
            ask()


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -0.5, 0, 5, "5%"])
def test_a_threshold_that_is_no_share_is_refused(threshold: Any) -> None:
    network = nn.Conv2d(3, 8, 3)
    with pytest.raises(InputError, match="threshold is"):
        hwnas.check(network, baseline=network, device="sim-npu", input_shape=(3, 8, 8), threshold=threshold)


def test_a_check_of_no_network_is_no_pass() -> None:
    with pytest.raises(InputError, match="no network is to be checked"):
        hwnas.check(baseline=nn.Conv2d(3, 8, 3), device="sim-npu", input_shape=(3, 8, 8))


def test_a_check_takes_the_device_of_the_baseline_file(tmp_path: Path) -> None:
    file = tmp_path / "recorded.json"
    write_baseline(file, api.record("mobilenetv2_050", device="sim-npu"))
    heard: list[Checked] = []
    report = hwnas.check(baseline=file, recorded=True, on_result=heard.append)
    assert (report.device, report.exit_code) == ("sim-npu", 0)
    assert tuple(heard) == report.networks


@pytest.mark.parametrize("held", [threading.Lock, sys._getframe, lambda: nn.Linear(2, 2).weight * 2])
def test_a_network_that_cannot_be_copied_is_told(held: Any) -> None:
    network = nn.Conv2d(3, 8, 3)
    network.held = held()
    with pytest.raises(InputError, match="Conv2d cannot be copied"):
        hwnas.profile(network, "sim-npu", input_shape=(3, 8, 8))


@pytest.mark.parametrize("none", [[], ()])
def test_a_compression_without_devices_is_refused_before_anything_is_trained(none: Any) -> None:
    with pytest.raises(InputError, match="no device is given"):
        hwnas.compress("mobilenetv2_050", data="digits", devices=none, **SHORT)


def global_state() -> dict[str, object]:
    """What calls of others may depend on."""
    loggers = ("", "torch.onnx", "onnxruntime.quantization")
    return {
        "threads": torch.get_num_threads(),
        "random numbers": torch.random.get_rng_state().tolist(),
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in loggers],
        "folder": Path.cwd(),
    }


def test_the_state_of_the_process_is_as_before(place: Path) -> None:
    importlib.import_module("tinynet")

    def refused() -> None:
        with pytest.raises(InputError, match="at least two"):
            hwnas.compress("tinynet:make", data="digits", devices="sim-npu", cut="blocks.0")

    before_all = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for ask in (
            lambda: hwnas.partition("tinynet:make"),
            lambda: api.find_candidates("tinynet:make", candidates=1),
            lambda: hwnas.profile("tinynet:make", "cpu-int8", protocol="quick"),
            refused,
        ):
            before = global_state()
            ask()
            assert global_state() == before
    finally:
        torch.set_num_threads(before_all)


def test_one_of_a_kind_needs_no_list(place: Path) -> None:
    ((one,),) = api.profile_each("tinynet:make", "sim-npu", input_shape=(3, 32, 32))
    assert (one.model, one.device) == ("tinynet:make", "sim-npu")
    for models in (iter(["tinynet:make"]), {"tinynet:make"}):
        ((same,),) = api.profile_each(models, ["sim-npu"], input_shape=[3, 32, 32])
        assert (same.model, same.device) == (one.model, one.device)


def test_options_of_a_device_may_be_a_mapping() -> None:
    network = nn.Conv2d(3, 8, 3)

    def found(device_option: Any) -> hwnas.Measurement:
        return hwnas.profile(network, "sim-npu", input_shape=(3, 32, 32), device_option=device_option)

    texts = found(["mode=single-layer", "allow_unknown=true"])
    assert found({"mode": "single-layer", "allow_unknown": True}).fingerprint == texts.fingerprint
    assert found({}).fingerprint == found(()).fingerprint != texts.fingerprint


def test_cuts_may_be_a_sequence() -> None:
    network = "mobilenetv2_050"
    text = hwnas.partition(network, cut="blocks.1,blocks.3", image_size=32)
    assert hwnas.partition(network, cut=["blocks.1", "blocks.3"], image_size=32).names == text.names
    found = next(api.profile_each(network, "sim-npu", blocks=True, cut=("blocks.1", "blocks.3")))
    assert found[0].parts is not None


NETWORK: Any = nn.Conv2d(3, 8, 3)
COMPRESSED: dict[str, Any] = {"model": "mobilenetv2_050", "data": "digits", "devices": "sim-npu"}


def profiled(**changed: Any) -> object:
    given = {"models": NETWORK, "devices": "sim-npu", "input_shape": (3, 32, 32), **changed}
    return next(api.profile_each(**given))


def compressed(**changed: Any) -> object:
    return hwnas.compress(**{**COMPRESSED, **changed})


def partitioned(**changed: Any) -> object:
    return hwnas.partition("mobilenetv2_050", **changed)


@pytest.mark.parametrize(
    ("ask", "changed", "cause"),
    [
        (profiled, {"device_option": {"mode": None}}, "device_option has 'mode'"),
        (profiled, {"device_option": 5}, "device_option is 5"),
        (profiled, {"device_option": [None]}, "device_option is None"),
        (profiled, {"protocol": 5}, "protocol"),
        (profiled, {"blocks": "yes"}, "blocks"),
        (profiled, {"precision": "1%"}, "precision is '1%'"),
        (profiled, {"max_seconds": "1"}, "max_seconds is '1'"),
        (profiled, {"models": []}, "no network is given"),
        (profiled, {"devices": []}, "no device is given"),
        (profiled, {"devices": [5]}, "device is 5"),
        (api.record, {"device": "sim-npu"}, "no network is given"),
        (partitioned, {"image_size": -1}, "image_size is -1"),
        (partitioned, {"image_size": "x"}, "image_size is 'x'"),
        (partitioned, {"cut": 5}, "cut is 5"),
        (partitioned, {"region": [5]}, "region is 5"),
        (partitioned, {"only": 5}, "only is 5"),
        (api.find_cuts, {"model": "mobilenetv2_050", "image_size": 1.5}, "image_size is 1.5"),
        (api.find_candidates, {"model": "mobilenetv2_050", "space": 5}, "space is 5"),
        (hwnas.open_run, {"path": 5}, "path is 5"),
        (hwnas.load, {"path": 5}, "path is 5"),
        (compressed, {"out": 5}, "out is 5"),
        (compressed, {"devices": 5}, "device is 5"),
        (compressed, {"cut": 5}, "cut is 5"),
        (compressed, {"image_size": -1}, "image_size"),
        (compressed, {"device_option": 5}, "device_option is 5"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    ask: Callable[..., object], changed: dict[str, Any], cause: str
) -> None:
    with pytest.raises(InputError, match=re.escape(cause)) as refused:
        ask(**changed)
    assert refused.value.fix


def test_a_front_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "run.toml").touch()
    for name in ("cpu", "sim-npu"):
        (tmp_path / "devices" / name).mkdir(parents=True)
        (tmp_path / "devices" / name / "front.json").touch()
    with pytest.raises(InputError, match="no front of a device 'nope'") as refused:
        hwnas.open_run(tmp_path).front("nope")
    assert "cpu, sim-npu" in refused.value.fix
