"""The networks and images of task_proofs.py that ../shared/data has."""

from __future__ import annotations

import importlib
import io
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import hwnas
from hwnas.compress.tasks import load_task

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SEED = 0


def denoising() -> nn.Module:
    """DnCNN for grey images."""
    return _shared("DnCnn", (1, 64, 64))


def super_resolution() -> nn.Module:
    """waifu2x's upconv_7, ×2."""
    return _shared("UpConv7", (3, 48, 48))


def text_segmentation() -> nn.Module:
    """PP-OCRv4's mobile text detector, its logit of text as one of two classes."""
    detector = type(_shared("TextDetector", (3, 320, 320)))

    class TextSegmenter(detector):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            text = super().forward(x)
            return torch.cat([-text / 2, text / 2], 1)

    module: nn.Module = TextSegmenter()
    module.input_shape = (3, 320, 320)  # type: ignore[assignment]
    return module


def demosaicking() -> nn.Module:
    """The network of Gharbi et al. 2016 for Bayer's mosaic, with its own weights."""
    module: nn.Module = importlib.import_module("demosaicnet").BayerDemosaick(pad=True)
    module.input_shape = (3, 64, 64)  # type: ignore[assignment]
    return module


def mosaic(image: Tensor, _: torch.Generator) -> Tensor:
    """Keep of each pixel (3, H, W) the one channel that Bayer's filter lets through."""
    kept: Tensor = importlib.import_module("demosaicnet").bayer(image)
    return kept


DEMOSAICKING = replace(load_task("denoising"), name="demosaicking", given=mosaic)


def denoising_data() -> hwnas.Data:
    """Grey crops of Imagenette to train on; BSD68 to test on."""
    train, val = crops("train", 1500, 48), crops("val", 100, 48)
    test = tuple(torch.from_numpy(np.array(image))[None] for image in images("bsd68_gray.zip", "BSD68/"))
    return _plain("imagenette, grey crops", grey_of(train), grey_of(val), test)


def super_resolution_data() -> hwnas.Data:
    """Crops of Imagenette; larger ones of other images to test on."""
    val = crops("val", 100, 64)
    return _plain("imagenette, crops", crops("train", 1600, 64), val, tuple(crops("val", 400, 96)[100:]))


def demosaicking_data() -> hwnas.Data:
    """Crops of Imagenette; other images of it to test on."""
    val, test = crops("val", 100, 64), tuple(crops("val", 300, 96)[100:])
    return _plain("imagenette, crops", crops("train", 1600, 64), val, test)


def text_segmentation_data() -> hwnas.Data:
    """Pages of text on photos, BGR; masks of 0 ground, 1 core of a line, 255 free."""
    parts = [*pages("train", 700, 0), *pages("val", 200, 1)]
    train, val, test = (
        hwnas.Images(pixels=pixels, labels=masks)
        for pixels, masks in (
            (parts[0][:600], parts[1][:600]),
            (parts[0][600:], parts[1][600:]),
            (parts[2], parts[3]),
        )
    )
    half = (0.5,) * 3
    return hwnas.Data(name="pages of text", train=train, val=val, test=test, mean=half, std=half)


def pages(part: str, count: int, number: int) -> tuple[Tensor, Tensor]:
    """Pages (N, 3, 320, 320) of make_text_segmentation.py on a part's photos, and their masks."""
    sys.path.insert(0, str(SHARED))
    page = importlib.import_module("make_text_segmentation").page
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    letters = sorted(file for file in fonts.glob("DejaVu*.ttf") if "Display" not in file.name)
    photos = [image.convert("RGB") for image in images("imagenette.zip", f"{part}/")]
    found = []
    for index in range(count):
        chance = np.random.default_rng([SEED, number, index])
        image, mask = page(chance, photos[chance.integers(len(photos))], letters, 320)
        bgr = np.array(image)[:, :, ::-1].transpose(2, 0, 1)
        found.append((torch.from_numpy(bgr.copy()), torch.from_numpy(mask).long()))
    return torch.stack([bgr for bgr, _ in found]), torch.stack([mask for _, mask in found])


def crops(part: str, count: int, size: int) -> Tensor:
    """Square cut-outs (N, 3, H, W) of Imagenette's images, nothing scaled, of fixed random places."""
    chance = np.random.default_rng(SEED)
    found = []
    names = list(images("imagenette.zip", f"{part}/"))
    for number in chance.permutation(len(names))[:count]:
        pixels = np.array(names[number].convert("RGB"))
        top, left = (int(chance.integers(side - size + 1)) for side in pixels.shape[:2])
        found.append(torch.from_numpy(pixels[top : top + size, left : left + size].copy()).permute(2, 0, 1))
    return torch.stack(found)


def images(archive: str, under: str) -> Iterator[Image.Image]:
    """The images of a folder of an archive, by name."""
    with zipfile.ZipFile(SHARED / archive) as files:
        for name in sorted(files.namelist()):
            if under in name and not name.endswith("/"):
                yield Image.open(io.BytesIO(files.read(name)))


def grey_of(pixels: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) by ITU-R BT.601, as Pillow's `L`."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return torch.einsum("nchw,c->nhw", pixels.float(), weights).round().to(torch.uint8)[:, None]


def _shared(name: str, input_shape: tuple[int, int, int]) -> nn.Module:
    sys.path.insert(0, str(SHARED))
    module: nn.Module = getattr(importlib.import_module("networks"), name)()
    module.input_shape = input_shape  # type: ignore[assignment]
    return module


def _plain(name: str, *parts: Any) -> hwnas.Data:
    """Images for networks that take values in 0 … 1 as they are."""
    train, val, test = (hwnas.Images(pixels=pixels, labels=None) for pixels in parts)
    channels = train.pixels.shape[1]
    mean, std = (0.0,) * channels, (1.0,) * channels
    return hwnas.Data(name=name, train=train, val=val, test=test, mean=mean, std=std)
