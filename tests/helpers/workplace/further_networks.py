"""Real networks that are here where their packages or files are."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.compress.tasks.several import several


def _seeded(net: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    net.input_shape = shape  # type: ignore[assignment]
    return net.eval()


class TwoClasses(nn.Module):
    """Logits of ground and text, of logits of text."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        text = self.net(x)
        return torch.cat([-text / 2, text / 2], 1)


def text_detector() -> nn.Module:
    """Return PP-OCRv4's text detector, of `../shared/data/networks.py`."""
    networks = import_module("networks")
    torch.manual_seed(0)
    return _seeded(TwoClasses(networks.TextDetector()), (3, 64, 64))


def output_net() -> nn.Module:
    """Return the last stage of the MTCNN face detector, of `../shared/data/networks.py`."""
    networks = import_module("networks")
    torch.manual_seed(0)
    return _seeded(networks.OutputNet(), (3, 48, 48))


def demosaicnet() -> nn.Module:
    """Return the demosaicking network of Gharbi et al. 2016, of the package demosaicnet."""
    package = find_spec("demosaicnet")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'demosaicnet'")
    folder = Path(package.origin).parent
    stubs = {name: types.ModuleType(name) for name in ("pkg_resources", "wget") if find_spec(name) is None}
    for stub in stubs.values():  # it asks both for files only
        stub.resource_filename = lambda _, name: str(folder / name)  # type: ignore[attr-defined]
    sys.modules.update(stubs)
    try:
        make = import_module("demosaicnet.modules").BayerDemosaick
    finally:
        for name in stubs:
            del sys.modules[name]
    torch.manual_seed(0)
    return _seeded(make(pretrained=False, pad=True), (3, 32, 32))


def yolov8n() -> nn.Module:
    """Return ultralytics' YOLOv8n."""
    tasks = import_module("ultralytics.nn.tasks")
    torch.manual_seed(0)
    return _seeded(tasks.DetectionModel("yolov8n.yaml", nc=4, verbose=False), (3, 64, 64))


def mosaic(image: Tensor, generator: torch.Generator) -> Tensor:
    """Keep of each pixel the one channel that a Bayer filter lets through."""
    kept = torch.zeros_like(image)
    for channel, (row, column) in ((1, (0, 0)), (0, (0, 1)), (2, (1, 0)), (1, (1, 1))):
        kept[channel, row::2, column::2] = image[channel, row::2, column::2]
    return kept


DEMOSAICKING = replace(load_task("denoising"), name="demosaicking", given=mosaic)
FACES = several({"boxes": REGRESSION, "points": REGRESSION, "faces": CLASSIFICATION})
