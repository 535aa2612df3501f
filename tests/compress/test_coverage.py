"""Any network: each goes all the way, from its partition to a checkpoint, on the simulator."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from PIL import Image
from shortest_run import LIBRARY, SEARCH
from sklearn.datasets import load_digits
from tiny import run_job

import hwnas
from hwnas.compress.data import load_data
from hwnas.compress.library.store import Library
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.tensors import tensors_of
from hwnas.progress import Progress

FAST = ("mobilenetv2_100", "resnet18", "vit_tiny_patch16_224", "branches:two")
SLOW = (
    "efficientnet_b0",
    "efficientnet_lite0",
    "mobilenetv3_large_100",
    "mnasnet_100",
    "resnet50",
    "regnety_004",
    "convnext_atto",
    "repvgg_a0",
    "ghostnet_100",
    "deit_tiny_patch16_224",
)
GRAPHS = {
    "graph_networks:unet": "segmentation",
    "graph_networks:pyramid": "detection",
    "graph_networks:segmenter": "segmentation",
    "real_networks:lraspp": "segmentation",
    "real_networks:deeplabv3": "segmentation",
    "real_networks:fcn_resnet50": "segmentation",
    "real_networks:ssdlite320": "detection",
    "real_networks:retinanet": "detection",
    "real_networks:smp_unet": "segmentation",
    "real_networks:smp_fpn": "segmentation",
    "real_networks:smp_deeplabv3plus": "segmentation",
    "real_networks:efficientdet_lite0": "detection",
    "real_networks:features_only": "features",
    "graph_networks:several": "features",
    "graph_networks:late": "super-resolution",
    "whole_networks:Edsr": "super-resolution",
    "whole_networks:NafNet": "denoising",
    "whole_networks:Yolop": "features",
    "further_networks:demosaicnet": "further_networks:DEMOSAICKING",
    "further_networks:output_net": "further_networks:FACES",
    "further_networks:text_detector": "segmentation",
    "further_networks:yolov8n": "detection:yolov8",
}
SPACES = {
    "graph_networks": "convolution",
    "whole_networks": "restoration",
    "further_networks:demosaicnet": "restoration",
    "further_networks:output_net": "splits",
}
"""Which have candidates for a network, where `compression` has none."""

SHARED = Path(__file__).parents[3] / "shared" / "data"
NETWORKS = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
IMAGES = 40


@pytest.fixture
def photos(workplace: Path) -> Path:
    """Ones and eights, in a folder for each, where the networks of one's own lie as well."""
    digits = load_digits()
    for digit in (1, 8):
        folder = workplace / "photos" / str(digit)
        folder.mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == digit][: IMAGES // 2]):
            Image.fromarray((image * 15).astype("uint8")).resize((32, 32)).save(folder / f"{number}.png")
    return workplace


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
def test_a_network_goes_all_the_way(photos: Path, model: str, caplog: pytest.LogCaptureFixture) -> None:
    out = photos / "run"
    result = run_job(replace(LIBRARY, model=model), SEARCH, out, "hwnas compress …", Progress())
    assert caplog.records == []
    with Library(out / "library") as library:
        entries = library.entries()
    assert {entry.state for entry in entries} == {"done"}, [entry.reason for entry in entries]
    blocks = {entry.candidate.part for entry in entries if entry.candidate.spec.family != "variant"}
    assert len(blocks) >= 2
    families = {entry.candidate.spec.family for entry in entries} - {"variant"}
    assert families == {"inverted-bottleneck", "residual", "convnext", "transformer"}

    front = result["front"]["front"]
    assert len(front) >= 2
    assert {row["cost_ratios"]["latency"] < 1 for row in front if any(row["choices"])} == {True}
    (checkpoint,) = result["checkpoints"]
    assert any(checkpoint["choices"])
    module = hwnas.load(checkpoint["path"], allow_code=":" in model)
    data = load_data("folder:photos", 32)
    x = data.normalize(data.test.pixels[:1])  # noise would be far from what normalisation has seen
    session = ort.InferenceSession(f"{checkpoint['path']}/model.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(x)
    got = torch.from_numpy(session.run(None, {"input": x.contiguous().numpy()})[0])
    assert expected.shape == (1, 2)
    assert float((got - expected).abs().max()) <= 1e-3 * max(1.0, float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("model", GRAPHS)
def test_a_network_that_is_no_chain_goes_all_the_way_without_labels(
    photos: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = photos / "run"
    monkeypatch.syspath_prepend(str(SHARED))
    module, _, function = model.partition(":")
    try:
        getattr(import_module(f"workplace.{module}"), function)()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    settings = replace(
        LIBRARY,
        model=model,
        weights="auto",
        task=GRAPHS[model],
        space=SPACES.get(module, SPACES.get(model, "compression")),
        per_block=2,
        image_size=0,
    )
    result = run_job(settings, SEARCH, out, "hwnas compress …", Progress())
    with Library(out / "library") as library:
        entries = library.entries()
    assert {entry.state for entry in entries} == {"done"}, [entry.reason for entry in entries]
    (checkpoint,) = result["checkpoints"]
    assert any(checkpoint["choices"])
    assert checkpoint["latency_ratio"]["value"] < 1
    loaded = hwnas.load(checkpoint["path"], allow_code=True)
    shape = ArchitectureSpec.read(Path(checkpoint["path"]) / "architecture.json").input_shape
    x = torch.rand(1, *shape)
    session = ort.InferenceSession(f"{checkpoint['path']}/model.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = tensors_of(loaded(x))
    got = session.run(None, {"input": x.numpy()})
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        apart = float((torch.from_numpy(one) - other).abs().max())
        assert apart <= 1e-3 * max(1.0, float(other.abs().max()))
