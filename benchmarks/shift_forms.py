"""Which form of a shift ONNX Runtime runs faster: pad, slice and join, or a depthwise convolution.

    python benchmarks/shift_forms.py

Each stands between two 1×1 convolutions, 32 channels move together; one thread, the three graphs in turn.
"""

from __future__ import annotations

import statistics
import time

import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.network import export_onnx
from hwnas.networks.blocks.bottleneck import SHIFT_CHANNELS, Shift

EXPAND = 6
RUNS, WARMUP = 300, 20
MAPS = ((96, 56), (192, 28), (960, 7))
"""Channels that are shifted, rows and columns."""


class Sliced(nn.Module):
    """The same as a shift by one pixel at most, of pads, slices and a concatenation."""

    def __init__(self, shift: Shift) -> None:
        super().__init__()
        self.offsets = [divmod(place, 3) for place in shift.logits.argmax(1).tolist()]

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        wide = functional.pad(x, (1, 1, 1, 1))
        groups = (slice(n * SHIFT_CHANNELS, (n + 1) * SHIFT_CHANNELS) for n in range(len(self.offsets)))
        return torch.cat(
            [
                wide[:, group, top : top + rows, left : left + columns]
                for group, (top, left) in zip(groups, self.offsets, strict=True)
            ],
            1,
        )


def main() -> None:
    """Print a row for each map."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    print("| channels, pixels | depthwise ms | pad, slice, join ms | none ms |\n|---|---|---|---|")
    for channels, side in MAPS:
        torch.manual_seed(0)
        shift = Shift(channels, 3, 1).eval()
        x = torch.randn(1, channels // EXPAND, side, side)
        sessions = []
        for form in (shift, Sliced(shift), nn.Identity()):
            net = nn.Sequential(
                nn.Conv2d(channels // EXPAND, channels, 1),
                nn.ReLU(),
                form,
                nn.Conv2d(channels, channels // EXPAND, 1),
            )
            content = export_onnx(net.eval(), tuple(x.shape))
            sessions.append(ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
        times_ms: list[list[float]] = [[] for _ in sessions]
        for _ in range(RUNS):
            for session, found in zip(sessions, times_ms, strict=True):
                start = time.perf_counter()
                session.run(None, {session.get_inputs()[0].name: x.numpy()})
                found.append(1e3 * (time.perf_counter() - start))
        medians = " | ".join(f"{statistics.median(found[WARMUP:]):.2f}" for found in times_ms)
        print(f"| {channels}, {side} × {side} | {medians} |", flush=True)


if __name__ == "__main__":
    main()
