"""How near blocks come to themselves with fewer hidden channels, cut in closed form and not trained at all.

    python benchmarks/cut_quality.py [--layers]

tf_efficientnet_lite0 with its ImageNet weights on Imagenette at 96 px, both from ../shared/data: noise-to-
signal ratio of each block's output on 200 images of `val`, moments from 512 of `train`. The same share of
channels in all layers of a block.
"""

from __future__ import annotations

import argparse

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from task_networks import SHARED, images
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from hwnas.networks.blocks.closed_form import read_by, start_cut, take_moments
from hwnas.networks.blocks.cut import CutTable, cut_specs
from hwnas.networks.blocks.hidden import find_hidden
from hwnas.networks.chosen_blocks import Blocks
from hwnas.networks.partition import partition

SHARES = (0.75, 0.5, 0.25)
SIZE, BATCH = 96, 64


def pictures(part: str, count: int) -> Tensor:
    """Images (N, 3, 96, 96) as the network takes them, spread over the classes."""
    found = list(images("imagenette.zip", f"{part}/"))
    step = len(found) / count
    chosen = [
        found[int(n * step)].convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for n in range(count)
    ]
    return torch.stack([pil_to_tensor(image) for image in chosen]) / 127.5 - 1


@torch.no_grad()
def main() -> None:
    """Print one row a block."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", action="store_true")
    options = parser.parse_args()
    net = timm.create_model("tf_efficientnet_lite0")
    net.load_state_dict(load_file(SHARED / "tf_efficientnet_lite0.safetensors"))
    parts = partition(net.eval(), (3, SIZE, SIZE), Blocks(layers=options.layers))
    train, val = (parts.modules[0](pictures(*part)) for part in (("train", 512), ("val", 200)))
    print(f"| block, share of hidden channels | {' | '.join(f'{share:g}' for share in SHARES)} |")
    print("|---" * (len(SHARES) + 1) + "|")
    for number, block in enumerate(parts.blocks, 1):
        in_shape, out_shape = parts.part_shapes(number)
        groups = find_hidden(block, in_shape)
        specs = cut_specs(CutTable(share=SHARES), block, in_shape, out_shape)
        moments = take_moments(block, read_by(specs, block, groups), train.split(BATCH))
        wanted = block(val)
        variance = wanted.var((0, 2, 3), keepdim=True)
        cells = []
        for spec in specs:
            cut = start_cut(spec, block, groups, moments)
            cells.append(f"{float(((cut(val) - wanted).square() / variance).mean()):.3f}")
        if cells:
            print(f"| {number} | {' | '.join(reversed(cells))} |", flush=True)
        train, val = torch.cat([block(batch) for batch in train.split(BATCH)]), wanted


if __name__ == "__main__":
    main()
