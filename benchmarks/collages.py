"""Objects pasted on textured grounds: networks, images and trained references of task_proofs.py."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import hwnas
from hwnas.compress.data.load import load_data
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.several import several
from hwnas.compress.tasks.task import Task
from hwnas.compress.training import loop
from hwnas.networks.serialize import save_state
from hwnas.networks.weights import read_state
from hwnas.progress import Progress

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
NETWORKS = ("detector", "overview")
FOLDER = Path("runs/collages")
"""Of the images that were made, in COCO's format."""

SIZE, CLASSES, TEXTURES = 256, 10, 4
ANCHORS = 9
SEED = 0
EPOCHS, BATCH_SIZE, LEARNING_RATE = 12, 16, 1e-3
"""Of the references, whose backbones have ImageNet's weights; not tuned."""

DETECTION = "detection:efficientdet-lite"
SEVERAL = several(
    {
        "boxes": load_task(DETECTION),
        "objects": load_task("segmentation"),
        "textures": load_task("segmentation"),
    },
    quality="worst",
)


def detector() -> nn.Module:
    """EfficientDet-lite0 for ten classes."""
    module: nn.Module = importlib.import_module("effdet").create_model(
        "tf_efficientdet_lite0",
        pretrained=False,
        pretrained_backbone=False,
        image_size=(SIZE, SIZE),
        num_classes=CLASSES,
    )
    module.input_shape = (3, SIZE, SIZE)  # type: ignore[assignment]
    return module


class Separable(nn.Sequential):
    """A depthwise and a pointwise convolution."""

    def __init__(self, wide: int, out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU6(),
        )


class Overview(nn.Module):
    """One backbone, one neck, three heads, as YOLOP: boxes at strides 8, 16, 32, two maps at stride 4."""

    def __init__(self, lite: Any, wide: int = 112) -> None:
        super().__init__()
        self.stem = nn.Sequential(lite.conv_stem, lite.bn1, *lite.blocks[:2])
        self.eighth, self.sixteenth = lite.blocks[2], nn.Sequential(*lite.blocks[3:5])
        self.last = nn.Sequential(Separable(112, 192, 2), Separable(192, 192))
        self.lateral = nn.ModuleList(nn.Conv2d(taken, wide, 1) for taken in (24, 40, 112, 192))
        self.smooth = nn.ModuleList(Separable(wide, wide) for _ in range(4))
        self.towers = nn.ModuleList(
            nn.Sequential(Separable(wide, wide), Separable(wide, wide)) for _ in range(3)
        )
        self.classes = nn.ModuleList(nn.Conv2d(wide, ANCHORS * CLASSES, 1) for _ in range(3))
        self.corners = nn.ModuleList(nn.Conv2d(wide, ANCHORS * 4, 1) for _ in range(3))
        self.objects = nn.Sequential(
            Separable(wide, wide), Separable(wide, 32), nn.Conv2d(32, CLASSES + 1, 1)
        )
        self.textures = nn.Sequential(Separable(wide, wide), Separable(wide, 32), nn.Conv2d(32, TEXTURES, 1))
        for each in self.classes:
            assert isinstance(each, nn.Conv2d) and each.bias is not None
            nn.init.constant_(each.bias, -4.6)  # 1 % of the places hold an object (RetinaNet, 3.3)
        self.input_shape = (3, SIZE, SIZE)

    def forward(self, x: Tensor) -> dict[str, object]:
        """Boxes as EfficientDet tells them, and two maps of classes."""
        fourth = self.stem(x)
        eighth = self.eighth(fourth)
        sixteenth = self.sixteenth(eighth)
        levels = [fourth, eighth, sixteenth, self.last(sixteenth)]
        found = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for number in (2, 1, 0):
            found[number] = found[number] + functional.interpolate(found[number + 1], scale_factor=2.0)
        found = [smooth(level) for smooth, level in zip(self.smooth, found, strict=True)]
        towers = [tower(level) for tower, level in zip(self.towers, found[1:], strict=True)]
        classes = [head(level) for head, level in zip(self.classes, towers, strict=True)]
        corners = [head(level) for head, level in zip(self.corners, towers, strict=True)]
        fine = found[0]
        return {
            "boxes": (classes, corners),
            "objects": self.objects(fine),
            "textures": self.textures(fine),
        }


def make_collages() -> None:
    """Write the images, boxes and masks, once."""
    if (FOLDER / "instances_test.json").is_file():
        return
    script = SHARED / "make_collage_detection.py"
    photos = SHARED / "imagenette.zip"
    subprocess.run([sys.executable, script, photos, FOLDER, "--masks", "--seed", str(SEED)], check=True)


def overview_data() -> hwnas.Data:
    """Boxes, masks of objects and masks of textures of each image."""
    data = load_data(f"folder:{FOLDER}", SIZE)

    def part(name: str, images: hwnas.Images) -> hwnas.Images:
        masks = {
            target: torch.stack([_mask(FOLDER / folder / f"{name}_{n:05d}.png") for n in range(len(images))])
            for target, folder in (("objects", "masks"), ("textures", "textures"))
        }
        return replace(images, labels={"boxes": images.labels, **masks})

    return replace(
        data,
        name="collages",
        shift_px=0,
        flip=False,
        class_names=(),
        digest=None,
        train=part("train", data.train),
        val=part("val", data.val),
        test=part("test", data.test),
    )


def _mask(file: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(file)))


def reference(name: str, out: Path, progress: Progress) -> Path:
    """The weights of `detector` or `overview`, trained here; a training that was stopped goes on."""
    make_collages()
    file = out / f"{name}.safetensors"
    if file.is_file():
        return file
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    module, data, task = _to_train(name)

    def told(done: int, loss: float) -> None:
        progress.advance(f"train {name}", done, EPOCHS, f"loss {loss:.3f}")

    state = file.with_suffix(".training.safetensors")
    loop.fit(
        module,
        data,
        loop.target_loss(task),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        seed=SEED,
        state_file=state,
        progress=told,
    )
    save_state(module.state_dict(), file)
    state.unlink()
    return file


def _to_train(name: str) -> tuple[nn.Module, hwnas.Data, Task]:
    """A network whose backbone has ImageNet's weights, its data and its task."""
    published = read_state(SHARED / "tf_efficientnet_lite0.safetensors")
    if name == "detector":
        module = detector()
        module.backbone.load_state_dict(published, strict=False)  # type: ignore[union-attr]
        return module, load_data(f"folder:{FOLDER}", SIZE), load_task(DETECTION)
    lite = timm.create_model("tf_efficientnet_lite0")
    lite.load_state_dict(published)
    return Overview(lite), overview_data(), SEVERAL


def overview() -> Overview:
    """The network of several tasks, not trained."""
    return Overview(timm.create_model("tf_efficientnet_lite0"))
