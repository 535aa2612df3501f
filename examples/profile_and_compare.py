# %% [markdown]
# # Measure two networks, and compare them
#
# Whole networks on this machine's CPU, by ONNX Runtime. Weights do not change latencies, so nothing is
# downloaded.

# %%
import hwnas

measurement = hwnas.profile("mobilenetv3_small_100", "cpu", protocol="quick")
print(f"mobilenetv3_small_100 takes {measurement.latency_ms:.2f} ms on {measurement.fingerprint.chip}")

# %% [markdown]
# In a comparison both take turns in one session: what slows the machine down meets both.

# %%
ratio = hwnas.compare("mobilenetv3_small_100", "mobilenetv3_large_100", "cpu", max_seconds=10).ratio
print(
    f"the large one takes {ratio.value:.2f} times as long, 95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
)
