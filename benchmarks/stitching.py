"""Time to get a network's whole graph: stitched from its parts, against a fresh export of the module.

python benchmarks/stitching.py
"""

from __future__ import annotations

import contextlib
import io
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import timm
import torch

from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.distill import Distilled
from hwnas.compress.library.metrics import BlockMetrics
from hwnas.compress.library.space import load_space
from hwnas.compress.library.stitch import Choices, Stitcher
from hwnas.compress.library.store import Library
from hwnas.network import export_onnx
from hwnas.networks.build import build_part
from hwnas.networks.partition import partition

SHAPE = (3, 224, 224)


def main() -> None:
    """Print one row a way; times are medians, stitched networks are all different."""
    torch.manual_seed(0)
    parts = partition(timm.create_model("efficientnet_b0").eval(), SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder))
        candidates = find_candidates(parts, load_space("compression"), 6)
        library.add(candidates)
        metrics = BlockMetrics(nsr=1.0, mse=1.0, relative_l1=1.0)
        for candidate in candidates:
            module = build_part(parts, candidate.part, candidate.spec).eval()
            content = export_onnx(module, (1, *parts.shapes[candidate.part]))
            done = Distilled(state=module.state_dict(), metrics=metrics, end_slope=0.0, seconds=0.0)
            library.finish(candidate, done, content)
        stitcher = Stitcher(parts, library)
        generator = random.Random(0)
        everything = [(choice,) * 5 for choice in range(7)]
        chosen = [tuple(generator.choice(block) for block in stitcher.choices) for _ in range(50)]
        for choices in everything:  # reads and prepares every part once, as a search's first networks do
            stitcher.network(choices).onnx()
        stitched = [_timed(partial(_graph, stitcher, choices)) for choices in chosen]
        module = stitcher.module(chosen[0])
        difference = _difference(stitcher.network(chosen[0]).onnx(), module)
        reference = stitcher.module((0,) * 7)
        rows = [
            ("stitched, 50 architectures", statistics.median(stitched)),
            ("export, TorchScript exporter", _export(reference, dynamo=False)),
            ("export, dynamo exporter (default)", _export(reference, dynamo=True)),
        ]
        library.close()
    slowest = rows[-1][1]
    print(f"EfficientNet-B0, {SHAPE}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'ms':>9}  {'faster than dynamo':>18}  way")
    for name, seconds in rows:
        print(f"{seconds * 1000:9.1f}  {slowest / seconds:17.0f}×  {name}")
    print(f"stitched graph in ONNX Runtime against the torch module: {difference:.1e} of the largest output")
    print("a device that needs only the graph reads the parts: nothing is joined, no weight is copied")


def _graph(stitcher: Stitcher, choices: Choices) -> bytes:
    return stitcher.network(choices).onnx()


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _export(module: torch.nn.Module, dynamo: bool) -> float:
    def export() -> None:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (torch.zeros(1, *SHAPE),), io.BytesIO(), dynamo=dynamo)  # type: ignore[arg-type]

    export()  # the first export imports and compiles
    return statistics.median(_timed(export) for _ in range(3))


def _difference(content: bytes, module: torch.nn.Module) -> float:
    x = torch.randn(1, *SHAPE)
    got = ort.InferenceSession(content).run(None, {"input": x.numpy()})[0]
    with torch.inference_mode():
        expected = module(x).numpy()
    return float(np.abs(got - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
