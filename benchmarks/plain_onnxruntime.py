"""Latency of ONNX files by plain ONNX Runtime, with nothing of hwnas: interleaved, medians, ratios.

python benchmarks/plain_onnxruntime.py REFERENCE.onnx OTHER.onnx …
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnxruntime as ort

ROUNDS, RUNS = 11, 100


def main(paths: list[str]) -> None:
    """Print one row a file; the ratio is to the first one, round by round."""
    if not paths:
        print(__doc__)
        return
    options = ort.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    sessions = [ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths]
    medians: list[list[float]] = [[] for _ in paths]
    for _ in range(ROUNDS):
        for session, values in zip(sessions, medians, strict=True):
            values.append(_median_ms(session))
    print(f"{'median ms':>10} {'ratio':>7}  file   (ONNX Runtime {ort.__version__}, {ROUNDS} × {RUNS} runs)")
    for path, values in zip(paths, medians, strict=True):
        ratio = statistics.median(v / first for v, first in zip(values, medians[0], strict=True))
        print(f"{statistics.median(values):10.3f} {ratio:7.3f}  {path}")


def _median_ms(session: ort.InferenceSession) -> float:
    entry = session.get_inputs()[0]
    feed = {entry.name: np.random.default_rng(0).standard_normal(entry.shape).astype(np.float32)}
    samples = []
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run(None, feed)
        samples.append((time.perf_counter() - start) * 1000)
    return statistics.median(samples)


if __name__ == "__main__":
    main(sys.argv[1:])
