"""A stored network on a device: what its runtime answers to the test images, beside torch and the card."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import shortest_run
import torch
from command_line import Run, refused
from torch import Tensor, nn
from workplace import tinynet

import hwnas
from hwnas.compress.data import Data
from hwnas.compress.data.load import load_data
from hwnas.compress.emit import evaluation
from hwnas.compress.emit.on_device import OnDevice
from hwnas.compress.reference.prepare import Reference
from hwnas.compress.reference.record import ReferenceRecord
from hwnas.compress.run.directory import RunRecord, versions
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.task import ACCURACY
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import mean_score
from hwnas.devices.base import Device, Handle
from hwnas.errors import DeviceError, HwnasError, InputError, PreparationError
from hwnas.files import write_bytes
from hwnas.network import Network
from hwnas.networks.architecture import ReferenceSpec
from hwnas.networks.exported import own_network
from hwnas.networks.intact import reference_hashes
from hwnas.networks.partition import partition
from hwnas.networks.serialize import save_module
from hwnas.precision import to_int8
from hwnas.profiles.catalogue import load_profile, open_device
from hwnas.testing.scripted import ScriptedDevice
from hwnas.wiring import Value, Wiring

EPOCHS = 4


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, digits: Data) -> Path:
    """The `reference` of a run on digits, right on most of them and sure of few."""
    run = tmp_path_factory.mktemp("run")
    folder = run / "reference"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = tinynet.make()
        loop.fit(
            module,
            digits,
            loop.target_loss(CLASSIFICATION),
            epochs=EPOCHS,
            batch_size=32,
            learning_rate=4e-3,
            seed=0,
            state_file=None,
            progress=lambda done, loss: None,
        )
    parts = partition(module, (3, 32, 32))
    spec = ReferenceSpec(source="function", name="workplace.tinynet:make")
    known = Reference(spec=spec, parts=parts, data=digits)
    save_module(known.module(), folder / "model.safetensors")
    known.architecture([None] * len(parts.modules)).save(folder / "architecture.json")
    write_bytes(folder / "model.onnx", own_network(parts, "reference").onnx())
    scores = loop.scores(known.module(), digits)
    assert scores is not None
    hashes: dict[str, Any] = {**reference_hashes(folder)}
    ReferenceRecord(
        **hashes,
        trained_epochs=EPOCHS,
        metric=ACCURACY,
        accuracy=mean_score(scores),
        parts=tuple(parts.names),
        macs=(0,) * len(parts.names),
        params=(0,) * len(parts.names),
        regions=parts.regions,
    ).write(folder)
    settings = replace(shortest_run.LIBRARY, model="workplace.tinynet:make", data="digits", image_size=0)
    RunRecord(settings=settings, versions=versions(), hashes={"data": digits.hash}).write(run)
    return folder


def evaluated(folder: Path, device: str = "cpu-1", data: Any = "digits", **more: Any) -> hwnas.Evaluation:
    return hwnas.evaluate(folder, device, data=data, allow_code=True, **more)


def right_by_hand(graph: bytes, data: Data) -> int:
    """Test images that a graph gets right in ONNX Runtime, normalised by hand and one by one."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    pixels = data.test.pixels.numpy().astype(np.float32) / 255
    images = (pixels - 0.5) / 0.5
    answers = [session.run(None, {"input": image[None]})[0].argmax() for image in images]
    return int(np.sum(np.array(answers) == data.test.labels.numpy()))


def test_the_accuracy_is_that_of_the_graph_in_the_devices_precision(reference: Path, digits: Data) -> None:
    graph, count = (reference / "model.onnx").read_bytes(), len(digits.test)
    found = evaluated(reference)
    assert found.quality is not None
    assert found.card is not None
    assert found.difference is not None
    assert found.quality.value * count == pytest.approx(right_by_hand(graph, digits))
    assert found.quality == found.in_torch == found.card
    assert (found.difference.low, found.difference.high) == (0, 0)
    assert found.agreement.value == 1
    assert found.largest_difference is not None
    assert found.largest_difference < 1e-4 * found.largest_output
    assert found.is_of_card_data
    assert (found.images, found.data, found.card_data) == (count, "digits", "digits")
    assert found.card.value > 0.5

    images = digits.train.pixels[:64].numpy().astype(np.float32) / 255
    quantised = to_int8(graph, (images - 0.5) / 0.5)
    rounded = evaluated(reference, "cpu-int8", device_option={"threads": 1})
    assert rounded.quality is not None
    assert rounded.quality.value * count == pytest.approx(right_by_hand(quantised, digits))
    assert rounded.in_torch == found.in_torch
    assert rounded.largest_difference is not None
    assert rounded.largest_difference > 100 * found.largest_difference
    assert rounded.agreement.value > 0.8
    assert rounded.fingerprint.precision == "int8"


@pytest.mark.parametrize("device", ["openvino-1", "mnn-1", "ncnn-1"])
def test_other_runtimes_answer_as_torch_does(reference: Path, device: str) -> None:
    try:
        found = evaluated(reference, device)
    except DeviceError as error:
        assert "pip install" in error.fix
        pytest.skip(error.cause)
    assert found.quality == found.in_torch
    assert found.agreement.value == 1
    assert found.largest_difference is not None
    assert 0 < found.largest_difference < 1e-3 * found.largest_output


def test_a_last_run_is_filled_up(reference: Path) -> None:
    assert 359 % 7 != 0
    alone, together = evaluated(reference), evaluated(reference, device_option="batch=7")
    assert together.images == alone.images == 359
    assert together.quality == alone.quality
    assert together.agreement.value == 1


class Wrong(ScriptedDevice):
    """A device that answers with the class after the right one, and nonsense where it is told to."""

    gives_outputs = True
    nonsense = ""

    def prepare_impl(self, network: Network) -> Handle:
        self.session = ort.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
        return super().prepare_impl(network)

    def outputs_impl(self, handle: Handle, runs: Any) -> list[list[np.ndarray[Any, Any]]]:
        return [self._answer(image) for (image,) in runs]

    def _answer(self, image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        (found,) = self.session.run(None, {"input": image})
        if self.nonsense == "shape":
            return [found[:, :3]]
        if self.nonsense == "number":
            return [found, found]
        return [np.full_like(found, np.nan) if self.nonsense else np.roll(found, 1, axis=1)]


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> type[Wrong]:
    monkeypatch.setattr(evaluation, "open_device", lambda profile: Wrong())
    return Wrong


def test_a_device_that_computes_wrong_is_seen(
    reference: Path, wrong: type[Wrong], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluated(reference)
    assert found.quality is not None
    assert found.in_torch is not None
    assert found.difference is not None
    assert found.in_torch == found.card
    assert found.quality.value < 0.3
    assert found.difference.high < 0
    assert found.difference.value == pytest.approx(found.quality.value - found.in_torch.value)
    assert found.agreement.value == 0
    monkeypatch.setattr(wrong, "nonsense", "nan")
    assert evaluated(reference).largest_difference is None


@pytest.mark.parametrize(("nonsense", "told"), [("shape", "(64, 3)"), ("number", "(1, 10), (1, 10)")])
def test_outputs_of_another_form_are_refused(
    reference: Path, wrong: type[Wrong], monkeypatch: pytest.MonkeyPatch, nonsense: str, told: str
) -> None:
    monkeypatch.setattr(wrong, "nonsense", nonsense)
    with pytest.raises(PreparationError, match=re.escape(f"gives tensors of {told} for 64 images")):
        evaluated(reference)


def test_data_without_labels_tell_the_agreement_alone(reference: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    found = evaluated(reference, data=(pixels, None))
    assert (found.quality, found.in_torch, found.difference) == (None, None, None)
    assert found.agreement.value == 1
    assert not found.is_of_card_data


def test_images_of_another_size_are_scaled_and_told_apart_from_the_cards(reference: Path) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (50, 3, 40, 40), dtype=np.uint8)
    found = evaluated(reference, data=(pixels, np.arange(50) % 10))
    assert found.quality == found.in_torch
    assert not found.is_of_card_data
    assert found.card_data == "digits"


def test_other_classes_are_refused(reference: Path) -> None:
    pixels = np.zeros((50, 3, 32, 32), dtype=np.uint8)
    with pytest.raises(InputError, match=r"tells 10 classes \(0, 1, 2, …\) apart, .* has 7 classes") as error:
        evaluated(reference, data=(pixels, np.arange(50) % 7))
    assert "--data digits" in error.value.fix


def copied(reference: Path, to: Path) -> Path:
    """The whole run again, in a place where it can be spoilt; its `reference`."""
    return Path(shutil.copytree(reference.parent, to)) / "reference"


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "architecture.json", "reference.json"])
def test_a_damaged_network_is_refused(reference: Path, tmp_path: Path, name: str) -> None:
    folder = copied(reference, tmp_path / "run")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(HwnasError, match=name) as error:
        evaluated(folder)
    assert error.value.fix


def test_a_reference_outside_of_its_run_does_not_say_its_task(reference: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reference, tmp_path / "alone"))
    with pytest.raises(InputError, match="does not say what its network is for") as error:
        evaluated(folder)
    assert "run.toml" in error.value.fix


def test_the_command_shows_a_table_that_fits_and_json(
    reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", str(reference), "--device", "cpu-1", "--data", "digits", "--allow-code")
    told = Run(capsys, command)
    assert told.code == 0, told.err
    assert max(map(len, told.out.splitlines())) <= 80
    for text in (
        "on cpu-1",
        "in torch, same images",
        "+0.0 points",
        "model card",
        "359 test images of digits",
    ):
        assert text in told.out
    plain = json.loads(Run(capsys, (*command, "--json")).out)
    assert plain["schema"] == "hwnas.evaluation/1"
    assert plain["quality"] == plain["card"]
    assert plain["images"] == 359


@pytest.mark.parametrize(
    ("changed", "cause", "fix"),
    [
        ({"path": "nowhere"}, "nowhere is not a checkpoint", "runs/demo/checkpoints"),
        ({"device": "cpuu"}, "there is no device profile 'cpuu'", "hwnas devices"),
        ({"device": "sim-npu"}, "sim-npu computes nothing: its latencies are modelled", "--device cpu"),
        ({"data": "digitz"}, "unknown data 'digitz'", "digits"),
        ({"code": ""}, "workplace.tinynet:make", "--allow-code"),
    ],
)
def test_what_cannot_be_is_told_with_its_fix(
    reference: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    cause: str,
    fix: str,
) -> None:
    path, device = changed.get("path", str(reference)), changed.get("device", "cpu-1")
    code = ("--allow-code",) if "code" not in changed else ()
    data = changed.get("data", "digits")
    refused(Run(capsys, ("evaluate", path, "--device", device, "--data", data, *code)), cause, fix)


class Several(nn.Module):
    """Two outputs with an axis of images, and one that is the same for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.grid = nn.Parameter(torch.arange(6.0).reshape(3, 2))

    def forward(self, x: Tensor) -> dict[str, Any]:
        maps = self.body(x)
        return {"maps": [maps, maps.mean((2, 3))], "grid": self.grid * 2}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_trees_of_outputs_come_back_as_torch_gives_them(batch: int) -> None:
    torch.manual_seed(0)
    module = Several().eval()
    network = Network.from_module("several", module, (1, 3, 8, 8))
    x = torch.randn(7, 3, 8, 8)
    with torch.no_grad():
        expected, few = module(x), module(x[:2])
    tree = {"maps": [Value(1), Value(2)], "grid": Value(3)}
    wiring = Wiring(reads=((0,),), gives=((1, 2, 3),), tree=tree)
    profile = load_profile("cpu-1")
    device = open_device(replace(profile, options={**profile.options, "batch": batch}))
    assert isinstance(device, Device)
    with device:
        first, last = OnDevice.prepare(device, network, wiring).answers([x, x[:2]], [expected, few])
    for found, right in ((first, expected), (last, few)):
        assert found.keys() == right.keys()
        assert torch.equal(found["grid"], right["grid"])
        for given, wanted in zip(found["maps"], right["maps"], strict=True):
            assert torch.allclose(given, wanted, atol=1e-5)
