# %% [markdown]
# # Networks of torchvision and of Hugging Face's transformers
#
# torchvision's classifiers go by their names. Everything else is a function of yours that builds the network:
# `partition` says where it is cut, and why not elsewhere.

# %%
import importlib.util
from pathlib import Path

import hwnas

print(hwnas.profile("torchvision.models:resnet18", "sim-npu").latency_ms, "ms on a simulated NPU")
cuts = hwnas.partition("torchvision.models:resnet18")
print(cuts.names)

# %% [markdown]
# A model of transformers gives an object; hwnas takes its `logits`. With `pretrained` weights, write
# `ResNetForImageClassification.from_pretrained("microsoft/resnet-18")` in its place.

# %%
Path("hub_network.py").write_text("""
def make():
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[32, 64, 128, 256], num_labels=10)
    network = ResNetForImageClassification(config)
    network.input_shape = (3, 64, 64)
    return network
""")
if importlib.util.find_spec("transformers"):
    print(hwnas.profile("hub_network:make", "sim-npu").latency_ms, "ms on a simulated NPU")
    print(hwnas.partition("hub_network:make").names)
else:
    print("pip install transformers")
