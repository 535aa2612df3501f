# %% [markdown]
# # A run, read into pandas
#
# Every file of a run directory is a record with typed fields. Needs `pip install pandas`, and the run of
# `three_devices.py`.

# %%
from dataclasses import asdict

import pandas as pd

import hwnas

run = hwnas.open_run("runs/three")
front = pd.DataFrame([asdict(row) for row in run.front("cpu").front])
print(front[["choices", "loss", "latency_ms", "macs"]].sort_values("latency_ms").to_string(index=False))

# %%
rows = [
    {
        "device": checkpoint.summary.device,
        "latency ratio": checkpoint.summary.latency_ratio.value,
        "accuracy": checkpoint.summary.accuracy.value,
        "of the reference": checkpoint.summary.accuracy_reference.value,
    }
    for checkpoint in run.checkpoints()
]
print(pd.DataFrame(rows).to_string(index=False))
