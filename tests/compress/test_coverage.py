"""Any network: each goes all the way, from its partition to a checkpoint, on the simulator."""

from __future__ import annotations

from dataclasses import replace
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
