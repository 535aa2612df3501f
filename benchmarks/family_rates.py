"""Learning rates and inherited weights of families without normalisation, on DnCNN and waifu2x.

python benchmarks/family_rates.py

Both networks, their weights and the photos are in `../shared/data` beside the repository. Each candidate is
distilled alone, on crops of 160 training photos, and judged on 32 others: NSR, 4 epochs of batches of 16,
mean of three seeds.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from hwnas.compress.library.metrics import ChannelStatistics, StatisticsAccumulator, distance
from hwnas.compress.training.loop import learning_rate_factor
from hwnas.networks.blocks.convolution import ConvolutionSpec
from hwnas.networks.blocks.families import build_replacement, learning_rate, start_replacement
from hwnas.networks.blocks.family import FamilySpec
from hwnas.networks.blocks.upsample import UpsampleSpec

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
EPOCHS, BATCH, SIDE = 4, 16, 24
SEEDS = (0, 1, 2)
NOISE = 25 / 255

Features = tuple[Tensor, Tensor]


def load(class_name: str, weights: str) -> Any:
    """A network of `networks.py` with its weights, in eval mode."""
    place = importlib.util.spec_from_file_location("networks", SHARED / "networks.py")
    assert place is not None and place.loader is not None
    networks = importlib.util.module_from_spec(place)
    place.loader.exec_module(networks)
    module = getattr(networks, class_name)()
    module.load_state_dict(load_file(SHARED / weights))
    return module.eval()


def crops(part: str, amount: int) -> Tensor:
    """Random crops of photos, in 0 … 1. (amount, 3, SIDE, SIDE)"""
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(SHARED / "imagenette.zip") as archive:
        names = sorted(name for name in archive.namelist() if f"{part}/" in name and name.endswith(".jpg"))
        found = []
        for index in generator.permutation(len(names))[:amount]:
            photo = np.asarray(Image.open(io.BytesIO(archive.read(names[index]))).convert("RGB"))
            top, left = (int(generator.integers(0, side - SIDE + 1)) for side in photo.shape[:2])
            found.append(photo[top : top + SIDE, left : left + SIDE])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def features(before: nn.Module, block: nn.Module, x: Tensor) -> Features:
    """What a block takes and gives."""
    x = before(x)
    return x, block(x)


def distilled(
    spec: FamilySpec, block: nn.Module, train: Features, val: Features, rate: float
) -> tuple[float, float]:
    """NSR of a candidate before and after, mean of all seeds."""
    pairs = [_distilled(spec, block, train, val, (rate, seed)) for seed in SEEDS]
    return sum(before for before, _ in pairs) / len(SEEDS), sum(after for _, after in pairs) / len(SEEDS)


def _distilled(
    spec: FamilySpec, block: nn.Module, train: Features, val: Features, how: tuple[float, int]
) -> tuple[float, float]:
    rate, seed = how
    accumulator = StatisticsAccumulator()
    accumulator.add(train[1])
    statistics: ChannelStatistics = accumulator.result()
    torch.manual_seed(seed)
    module = build_replacement(spec, tuple(train[0].shape[1:]), tuple(train[1].shape[1:]))
    start_replacement(module, spec, block, statistics.mean, statistics.variance)
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=0.0, fused=True)
    total = EPOCHS * (len(train[0]) // BATCH)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, total))

    def judged() -> float:
        with torch.no_grad():
            return float(distance("nsr", module.eval()(val[0]), val[1], statistics.variance))

    before = judged()
    module.train()
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(train[0])), BATCH):
            loss = distance("nsr", module(train[0][chosen]), train[1][chosen], statistics.variance)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
    return before, judged()


def convolution(**values: Any) -> ConvolutionSpec:
    """A chain without normalisation, kernel 3 unless `values` say otherwise."""
    plain = {"kernel": 3, "norm": "none", "skip": False, "output": values["activation"]}
    return ConvolutionSpec(**(plain | values))


def main() -> None:
    """Print a row a candidate."""
    torch.set_num_threads(1)
    if not (SHARED / "networks.py").is_file():
        print(f"no networks in {SHARED}")
        return
    train, val = crops("train", 160), crops("val", 32)
    dncnn = load("DnCnn", "dncnn_gray_sigma25.safetensors").model
    waifu2x = load("UpConv7", "waifu2x_upconv7_photo_x2.safetensors")
    noisy: list[Tensor] = []
    for images in (train, val):
        grey = images.mean(1, keepdim=True)
        generator = torch.Generator().manual_seed(0)
        noisy.append(grey + NOISE * torch.randn(grey.shape, generator=generator))
    padded = [functional.pad(images, (7, 7, 7, 7), mode="replicate") for images in (train, val)]
    body, end = waifu2x.body, nn.Sequential(*waifu2x.body[10:], waifu2x.up)
    leaky: dict[str, Any] = {"activation": "leaky_relu", "padded": False}
    relu: dict[str, Any] = {"activation": "relu", "padded": True}
    enlarging: dict[str, Any] = {
        "kernel": 3,
        "depth": 2,
        "width": 0.25,
        "activation": "leaky_relu",
        "output": "linear",
    }
    rows: list[tuple[str, nn.Module, nn.Module, list[Tensor], FamilySpec]] = [
        ("DnCNN, layers 5–8", dncnn[:8], dncnn[8:16], noisy, convolution(depth=2, width=1.0, **relu)),
        ("DnCNN, layers 5–8", dncnn[:8], dncnn[8:16], noisy, convolution(depth=4, width=0.5, **relu)),
        ("waifu2x, layers 3–5", body[:4], body[4:10], padded, convolution(depth=3, width=0.5, **leaky)),
        (
            "waifu2x, layers 3–5",
            body[:4],
            body[4:10],
            padded,
            convolution(depth=2, width=0.5, kernel=5, **leaky),
        ),
        ("waifu2x, end", body[:10], end, padded, UpsampleSpec(upsample="transposed", **enlarging)),
        ("waifu2x, end", body[:10], end, padded, UpsampleSpec(upsample="pixel-shuffle", **enlarging)),
    ]
    rates = (1e-3, 4e-3, 1e-2)
    print("| candidate | block | " + " | ".join(f"{rate:g}" for rate in rates) + " | from scratch |")
    print("|---|---|" + "---|" * (len(rates) + 1))
    for name, before, block, pair, spec in rows:
        taught, judged = (features(before, block, x) for x in pair)
        cells = [distilled(spec, block, taught, judged, rate) for rate in rates]
        fresh = distilled(spec, nn.Identity(), taught, judged, learning_rate(spec))
        texts = [f"{cells[0][0]:.2f} → {after:.3f}" for _, after in cells]
        print(
            f"| `{spec.name}` | {name} | {' | '.join(texts)} | {fresh[0]:.2f} → {fresh[1]:.3f} |", flush=True
        )


if __name__ == "__main__":
    main()
