"""What memory formats and allocator give: seconds of a training step of EfficientNet-B0, 32 images of 160 px.

python benchmarks/training_step.py
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, time, timm, torch
from hwnas.compress.training.loop import tune_allocator
if "allocator" in sys.argv[1]:
    tune_allocator()
layout = torch.channels_last if "channels" in sys.argv[1] else torch.contiguous_format
model = timm.create_model("efficientnet_b0").to(memory_format=layout).train()
x = torch.randn(32, 3, 160, 160).contiguous(memory_format=layout)
seconds = []
for _ in range(6):
    start = time.perf_counter()
    model(x).sum().backward()
    seconds.append(time.perf_counter() - start)
print(min(seconds))
"""
WAYS = ("as torch and glibc come", "channels last", "channels last, tune_allocator")
ROUNDS = 3


def main() -> None:
    """Print the best step of three fresh processes for each way, interleaved."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, values in seconds.items():
            out = subprocess.run(
                [sys.executable, "-c", CODE, way], check=True, capture_output=True, text=True
            )
            values.append(float(out.stdout))
    first = min(seconds[WAYS[0]])
    for way, values in seconds.items():
        print(f"{way:32}{min(values):6.2f} s a step, {min(values) / first:.2f} of the first")


if __name__ == "__main__":
    main()
