"""Linear centred kernel alignment between the layers of networks, by small batches.

Similarity of two representations of the same images, whatever their widths: 1 where one is the other, rotated
and scaled, 0 where they have nothing in common (Kornblith et al. 2019). HSIC is estimated without bias for
each batch (Song et al. 2012, eq. 5) and averaged over batches before they are divided (Nguyen et al. 2021,
eq. 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST = 4096
"""Values of an image that count; larger maps are pooled."""
LEAST_IMAGES = 4


@torch.no_grad()
def layer_similarity(
    networks: Sequence[nn.Module], batches: Iterable[Tensor]
) -> tuple[list[list[str]], np.ndarray]:
    """The alignment of all layers of some networks with each other.

    Layers are convolutions and linear layers, by what they give; of one that is called several times in a
    pass, the first time counts.

    Args:
        networks: in eval mode; each takes the same images.
        batches: images (B, C, H, W), 4 of them at least.

    Returns:
        The names of each network's layers in the order in which they are called, and the matrix (L, L) of all
        of them, those of the first network first.
    """
    sums: Tensor | None = None
    names: list[list[str]] = []
    for x in batches:
        grams: list[Tensor] = []
        names = []
        for network in networks:
            of_network = _grams(network, x)
            names.append(list(of_network))
            grams += of_network.values()
        found = hsic(torch.stack(grams))
        sums = found if sums is None else sums + found
    assert sums is not None
    scale = sums.diagonal().clamp_min(0).sqrt()
    scale = torch.where(scale > 0, scale, torch.inf)  # a layer that gives the same for all images
    return names, (sums / scale[:, None] / scale[None]).numpy()


def gram(output: Tensor) -> Tensor:
    """Inner products (B, B), float64, of what a layer gives for each image of a batch."""
    flat = _pooled(output).flatten(1).double()
    return flat @ flat.T


def hsic(grams: Tensor) -> Tensor:
    """The unbiased estimate of HSIC of any two of some Gram matrices. grams: (L, B, B); gives (L, L)."""
    count = grams.shape[1]
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=1, dim2=2))
    flat, rows = hollow.flatten(1), hollow.sum(2)
    total = rows.sum(1)
    products = flat @ flat.T + torch.outer(total, total) / ((count - 1) * (count - 2))
    return (products - 2 / (count - 2) * rows @ rows.T) / (count * (count - 3))


def _grams(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The Gram matrix of what each layer gives, by name, in the order of the calls.

    It is taken at once: what comes behind may change a map in place.
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):

                def keep(_: nn.Module, __: object, output: object, name: str = name) -> None:
                    if name not in found and isinstance(output, Tensor) and len(output) == len(x):
                        found[name] = gram(output)

                stack.callback(module.register_forward_hook(keep).remove)
        network(x)
    return found


def _pooled(output: Tensor) -> Tensor:
    """Maps with fewer pixels, where an image has too many values."""
    if output.ndim != 4 or output[0].numel() <= LARGEST:
        return output
    side = max(1, int((LARGEST / output.shape[1]) ** 0.5))
    rows, columns = (min(side, pixels) for pixels in output.shape[2:])
    return functional.adaptive_avg_pool2d(output, (rows, columns))
