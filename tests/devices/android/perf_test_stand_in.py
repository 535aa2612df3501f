"""Stands in for `onnxruntime_perf_test`, of which no package has a binary.

Its options, what it prints and its result file are as its sources have them, around a real session.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

parser = argparse.ArgumentParser()
parser.add_argument("-e", choices=["cpu", "qnn", "xnnpack", "nnapi"])
parser.add_argument("-C", default="")
parser.add_argument("-i", default="")
parser.add_argument("-x", type=int)
parser.add_argument("-y", type=int)
parser.add_argument("-m", choices=["times", "duration"])
parser.add_argument("-r", type=int)
parser.add_argument("-I", action="store_true")
parser.add_argument("model", type=Path)
parser.add_argument("result", type=Path)
given = parser.parse_args()

if Path("crash").exists():
    os.kill(os.getpid(), signal.SIGSEGV)
options = ort.SessionOptions()
options.intra_op_num_threads = given.x
for pair in given.C.split():
    options.add_session_config_entry(*pair.split("|"))
start_s = time.perf_counter()
try:
    session = ort.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit(-1)
created_s = time.perf_counter() - start_s
print(f"\nSession creation time cost: {created_s:.6g} s")
(wanted,) = session.get_inputs()
feeds = {wanted.name: np.zeros(wanted.shape, np.float32)}
samples_s = []
for _ in range(1 + given.r):
    start_s = time.perf_counter()
    session.run(None, feeds)
    samples_s.append(time.perf_counter() - start_s)
print(f"First inference time cost: {1000 * samples_s[0]:.0f} ms")
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"Peak working set size: {peak} bytes")
with given.result.open("a") as file:
    for index, seconds in enumerate(samples_s[1:]):
        file.write(f"{given.model.stem},{seconds:.6g},{peak},99,{index}\n")
