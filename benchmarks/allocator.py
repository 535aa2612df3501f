"""What `tune_allocator` gives: seconds of a training step of EfficientNet-B0, 32 images of 160 px.

python benchmarks/allocator.py
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, time, timm, torch
from hwnas.compress.training import tune_allocator
if sys.argv[1] == "tuned":
    tune_allocator()
model = timm.create_model("efficientnet_b0").to(memory_format=torch.channels_last).train()
x = torch.randn(32, 3, 160, 160).contiguous(memory_format=torch.channels_last)
seconds = []
for _ in range(6):
    start = time.perf_counter()
    model(x).sum().backward()
    seconds.append(time.perf_counter() - start)
print(min(seconds))
"""
ROUNDS = 3


def main() -> None:
    """Print the best step of three fresh processes for each way, interleaved."""
    seconds: dict[str, list[float]] = {"plain": [], "tuned": []}
    for _ in range(ROUNDS):
        for name, values in seconds.items():
            out = subprocess.run(
                [sys.executable, "-c", CODE, name], check=True, capture_output=True, text=True
            )
            values.append(float(out.stdout))
    plain, tuned = min(seconds["plain"]), min(seconds["tuned"])
    print(f"{plain:6.2f} s a step as glibc comes")
    print(f"{tuned:6.2f} s with tune_allocator: {tuned / plain:.2f} of it")


if __name__ == "__main__":
    main()
