"""Image to image: super-resolution and denoising.

Networks take and give images in 0 … 1. PSNR and SSIM are of values rounded to 8 bits.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.compress.data import Data
from hwnas.compress.tasks.task import Measure, Metric, Task
from hwnas.errors import InputError

BEST_DB = 100.0
"""What two equal images have: their PSNR would be infinite."""

LUMA = (65.481, 128.553, 24.966)
LUMA_BLACK = 16.0
"""Y of R, G and B in 0 … 1 by ITU-R BT.601, 16 … 235."""

WINDOW, SIGMA = 11, 1.5  # of the Gaussian window of SSIM
LARGEST_SCALE = 16
LARGEST_SIGMA = 255.0


def eight_bits(images: Tensor) -> Tensor:
    """Images in 0 … 1 as the 256 values of a file, 0 … 255, float64; what is no number is black."""
    return images.double().nan_to_num(0.0).clamp(0, 1).mul(255).round()


def luma(images: Tensor) -> Tensor:
    """Y (B, 1, H, W) of 8-bit RGB (B, 3, H, W), not rounded; one channel is Y itself."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device) / 255
    return torch.einsum("bchw,c->bhw", images, weights)[:, None] + LUMA_BLACK


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,): 10 log10(255² / mean squared difference)."""
    error = (images - others).square().flatten(1).mean(1)
    return (10 * torch.log10(255**2 / error.clamp_min(1e-12))).clamp_max(BEST_DB)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of each image, (B,), by Wang et al. 2004: Gaussian window of 11, σ = 1.5.

    Only windows that lie in the image count; of several channels the mean.
    """
    places = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    window = torch.exp(-places.square() / (2 * SIGMA**2))
    window = window / window.sum()

    def smooth(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[-2:])
        rows = functional.conv2d(flat, window.view(1, 1, -1, 1))
        return functional.conv2d(rows, window.view(1, 1, 1, -1)).view(len(x), -1)

    mean, mean_other = smooth(images), smooth(others)
    variance = smooth(images.square()) - mean.square()
    variance_other = smooth(others.square()) - mean_other.square()
    covariance = smooth(images * others) - mean * mean_other
    small, smaller = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean * mean_other + small) * (2 * covariance + smaller)
    return (
        likeness / ((mean.square() + mean_other.square() + small) * (variance + variance_other + smaller))
    ).mean(1)


def _figures(border: int, output: Tensor, targets: Tensor) -> Tensor:
    """PSNR and SSIM of all channels, and where there are several of Y, (B, 4) or (B, 2)."""
    inner = slice(border, -border or None)
    found, wanted = (eight_bits(images[:, :, inner, inner]) for images in (output, targets))
    columns = [psnr(found, wanted), ssim(found, wanted)]
    if output.shape[1] > 1:
        columns += [psnr(luma(found), luma(wanted)), ssim(luma(found), luma(wanted))]
    return torch.stack(columns, 1)


def _column(name: str, number: int) -> Measure:
    """A column of the figures; one that is not there does not apply."""

    def total(evidence: Tensor) -> Tensor:
        return evidence[:, number] if number < evidence.shape[1] else evidence[:0, 0]

    return Measure(metric=Metric(name=name, share=False, higher_is_better=True), total=total)


PSNR, SSIM = _column("PSNR in dB", 0), _column("SSIM", 1)
PSNR_Y, SSIM_Y = _column("PSNR of Y in dB", 2), _column("SSIM of Y", 3)
PSNR_LAST = replace(PSNR_Y, total=lambda evidence: evidence[:, -2])
"""Of Y; the only channel is Y itself."""
PSNR_BESIDE_Y = replace(
    PSNR, total=lambda evidence: evidence[:, 0] if evidence.shape[1] > 2 else evidence[:0, 0]
)


def _check(border: int, output: Tensor, data: Data, model: str) -> None:
    """Make sure that a network gives images of the targets' size. Raises InputError."""
    if not data.has_targets:
        return
    _, targets = next(replace(data, place="cpu").batches(data.train, 2))
    if not isinstance(targets, Tensor) or targets.ndim != 4 or not targets.is_floating_point():
        raise InputError(
            f"the targets of {data.name} are no images",
            "give float32 images (N, C, H, W) in 0 … 1, a folder of images, or one with input/ and target/",
        )
    if output.shape != targets.shape:
        found, wanted = (f"{x.shape[1]} × {x.shape[2]} × {x.shape[3]}" for x in (output, targets))
        raise InputError(
            f"{model} gives images of {found} (channels, rows, columns), the targets are {wanted}",
            "name the task with the network's scale: --task super-resolution:N; or wrap the network so that "
            "it gives such images",
        )
    least = WINDOW + 2 * border
    if min(targets.shape[2:]) < least:
        raise InputError(
            f"the targets are {targets.shape[3]} × {targets.shape[2]} pixels, SSIM wants {least} at least",
            "give larger images: --image-size N",
        )


def _restoration(name: str, border: int = 0) -> Task:
    """A task whose network gives an image in 0 … 1, by PSNR of all channels."""
    return Task(
        name=name,
        metric=PSNR.metric,
        total=PSNR.total,
        further_metrics=(SSIM, PSNR_Y, SSIM_Y),
        agreement_metric=Metric(name="PSNR to the reference in dB", share=False, higher_is_better=True),
        loss=functional.l1_loss,
        distill=functional.l1_loss,
        score=lambda output, targets: _figures(border, output, targets),
        agreement=lambda output, other: psnr(eight_bits(output), eight_bits(other)),
        output="images (B, C, H, W)",
        ranks=(4,),
        plain_pixels=True,
        check=lambda output, data, model: _check(border, output, data, model),
    )


def super_resolution(argument: str) -> Task:
    """Make `super-resolution:N`: the network is given images whose sides are an N-th.

    They are made smaller by bicubic interpolation with antialiasing, as Pillow's BICUBIC does (a = −0.5, the
    support N times as wide), and rounded to 8 bits as a file would be. A border of N pixels does not count.
    Without an argument the data bring inputs and targets, or no targets.

    Raises:
        InputError: N is no whole number from 2 to 16.
    """
    if not argument:
        return _restoration("super-resolution")
    scale = int(argument) if argument.isascii() and argument.isdigit() else 0
    if not 2 <= scale <= LARGEST_SCALE:
        raise InputError(
            f"the scale of super-resolution:{argument} is no whole number from 2 to {LARGEST_SCALE}",
            "say how often larger the network makes an image's side: --task super-resolution:2",
        )

    def given(image: Tensor, generator: torch.Generator) -> Tensor:
        height, width = (side // scale for side in image.shape[1:])
        small = functional.interpolate(
            image[None, :, : height * scale, : width * scale],
            size=(height, width),
            mode="bicubic",
            antialias=True,
        )
        return small[0].clamp(0, 1).mul(255).round().div(255)

    return replace(
        _restoration(f"super-resolution:{scale}", border=scale),
        metric=PSNR_LAST.metric,
        total=PSNR_LAST.total,
        further_metrics=(SSIM_Y, PSNR_BESIDE_Y, SSIM),
        given=given,
        enlarges=scale,
    )


def denoising(argument: str) -> Task:
    """Make `denoising:SIGMA`: the network is given images with Gaussian noise, its sigma of 255, not clipped.

    Without an argument the data bring inputs and targets, or no targets.

    Raises:
        InputError: SIGMA is no number above 0, 255 at most.
    """
    if not argument:
        return _restoration("denoising")
    try:
        sigma = float(argument)
    except ValueError:
        sigma = math.nan
    if not 0 < sigma <= LARGEST_SIGMA:
        raise InputError(
            f"the noise of denoising:{argument} is no number above 0, 255 at most",
            "give its standard deviation for pixels in 0 … 255: --task denoising:25",
        )

    def given(image: Tensor, generator: torch.Generator) -> Tensor:
        return image + torch.randn(image.shape, generator=generator) * (sigma / 255)

    return replace(_restoration(f"denoising:{sigma:g}"), given=given)
