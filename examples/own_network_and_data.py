# %% [markdown]
# # Compress a network of your own, with a torch Dataset of your own
#
# The network is a function that builds it, in a file that can be imported, as other processes have to build
# it again. Here it is trained on the data first, since it has no weights. Yours has:
# `weights="my.safetensors"`.

# %%
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import hwnas

Path("my_network.py").write_text("""
from torch import nn


def layer(wide, out, stride):
    return nn.Sequential(nn.Conv2d(wide, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Network(nn.Module):
    input_shape = (1, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = layer(1, 16, 1)
        self.stages = nn.Sequential(
            nn.Sequential(layer(16, 32, 2), layer(32, 32, 1)),
            nn.Sequential(layer(32, 64, 2), layer(64, 64, 1)),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


def make():
    return Network()
""")

digits = load_digits()
images = torch.from_numpy(digits.images).float()[:, None] / 16  # (1797, 1, 8, 8) in 0 … 1
dataset = TensorDataset(images, torch.from_numpy(digits.target).long())

# %% [markdown]
# `preset="quick"` and few epochs make this a matter of a few minutes. What was stopped goes on when it is
# called again.

# %%
run = hwnas.compress(
    "my_network:make",
    data=dataset,
    devices=["cpu"],
    out="runs/own",
    preset="quick",
    space="convolution",
    weights="none",
    train_epochs=12,
    epochs=4,
    population=8,
    generations=3,
    finetune_epochs=6,
    speedup=[1.5],
)
checkpoint = run.checkpoint("cpu", "speedup=1.5")
summary = checkpoint.summary
print(
    f"{summary.latency_ratio.value:.2f} of the latency, "
    f"accuracy {summary.accuracy_reference.value:.3f} → {summary.accuracy.value:.3f}"
)

# %% [markdown]
# The result is a torch module, and an ONNX file to deploy.

# %%
module = checkpoint.module(allow_code=True)
with torch.no_grad():
    print(module(images[:1]).argmax(1), digits.target[:1])
print(checkpoint.path / "model.onnx")
