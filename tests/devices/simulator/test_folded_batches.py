"""A batch that a network folds out of its one image: every image is counted, in whichever way it is made."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hwnas.devices.simulator import Network, Scheduler, load_accelerator, read_onnx
from hwnas.network import export_onnx

CHANNELS, SIZE = 4, 16

# How n images (n, C, H, W) are made of one of n C channels or of C channels.
FOLDS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "frames": lambda x, n: x.reshape(n, -1, *x.shape[2:]),
    "frames last": lambda x, n: x.reshape(1, -1, n, *x.shape[2:]).permute(0, 2, 1, 3, 4).flatten(0, 1),
    "repeat": lambda x, n: x[:, :CHANNELS].repeat(n, 1, 1, 1),
    "expand": lambda x, n: x[:, :CHANNELS].expand(n, -1, -1, -1),
    "flips": lambda x, n: torch.cat([x[:, i : i + CHANNELS].flip(3) for i in range(n)]),
    "rows": lambda x, n: x[:, :CHANNELS].reshape(1, CHANNELS, n, -1, x.shape[3]).transpose(1, 2)[0],
    "columns": lambda x, n: x[:, :CHANNELS].unfold(3, SIZE // n, SIZE // n).permute(0, 3, 1, 2, 4)[0],
}


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.squeeze(F.adaptive_avg_pool2d(x, 1)).sigmoid()
        return x * gate


# What reads such a batch.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "strided": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1),
    "without padding": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3),
    "padded before": lambda: nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(CHANNELS, CHANNELS, 3)),
    "dilated": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=2, dilation=2),
    "depthwise": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
    "pointwise": lambda: nn.Conv2d(CHANNELS, CHANNELS, 1),
    "along rows": lambda: nn.Conv2d(CHANNELS, CHANNELS, (1, 3), padding=(0, 1)),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2),
    "ragged": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 3, 2, 1, groups=2),
    "pool": lambda: nn.MaxPool2d(3, 1, 1),
    "gate": Gate,
    "norm": lambda: nn.GroupNorm(2, CHANNELS),
    "resize": lambda: nn.Upsample(scale_factor=2),
    "one row": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((1, None)), nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)),
}


class Folded(nn.Module):
    """Layers over a folded batch."""

    def __init__(self, fold: str, images: int, *layers: str, stem: bool = False) -> None:
        super().__init__()
        self.fold, self.images, self.channels = FOLDS[fold], images, images * CHANNELS
        self.stem = nn.Conv2d(self.channels, self.channels, 3, 1, 1) if stem else nn.Identity()
        self.layers = nn.Sequential(*(LAYERS[name]() for name in layers))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(self.fold(self.stem(x), self.images))
        return result.mean(0, keepdim=True)


def read(module: Folded) -> Network:
    return read_onnx(export_onnx(module.eval(), (1, module.channels, SIZE, SIZE)))


def counted(module: Folded) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(1, module.channels, SIZE, SIZE))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("layer", sorted(LAYERS))
@pytest.mark.parametrize("fold", sorted(FOLDS))
def test_every_image_of_a_folded_batch_is_multiplied(fold: str, layer: str) -> None:
    module = Folded(fold, 4, layer, "convolution")
    assert read(module).macs == counted(module) > 0


@pytest.mark.parametrize("seed", range(30))
def test_random_layers_over_random_batches_are_counted_as_torch_counts_them(seed: int) -> None:
    draw = random.Random(seed)
    layers = draw.choices(sorted(set(LAYERS) - {"one row", "without padding"}), k=4)
    module = Folded(draw.choice(sorted(FOLDS)), draw.choice([2, 4, 8]), *layers, stem=draw.random() < 0.5)
    network = read(module)
    assert network.macs == counted(module)
    scheduler = Scheduler(load_accelerator())
    figures = scheduler.figures([scheduler.part(network)])
    assert (figures.macs, figures.iterations >= network.iterations) == (network.macs, True)


OPERATORS: dict[str, dict[str, object]] = {
    "Conv": {"pads": [1, 1, 1, 1]},
    "MaxPool": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    "GlobalAveragePool": {},
    "ReduceMean": {"axes": [2, 3]},
    "InstanceNormalization": {},
    "Softmax": {"axis": 1},
}


def over(images: int, op: str, attributes: dict[str, object]) -> Network:
    """One operator over n images of 16 channels that one image of 16 n channels holds."""
    inputs = ["r"]
    constants = {"s": np.array([images, 16, 32, 32], np.int64)}
    if op.startswith("Conv"):
        inputs, constants["w"] = (
            ["r", "w"],
            np.zeros((16, 16, 3, 3) if op == "Conv" else (16, 16, 2, 2), np.float32),
        )
    if op == "InstanceNormalization":
        inputs, constants["w"] = ["r", "w", "w"], np.zeros(16, np.float32)
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node(op, inputs, ["a"], **attributes),
        helper.make_node("Identity", ["a"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "folded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16 * images, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return read_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


@pytest.mark.parametrize("op", sorted(OPERATORS))
@pytest.mark.parametrize("accelerator", ["mobile-npu", "tpu-like-df"])
def test_a_folded_batch_takes_as_long_as_so_many_images(op: str, accelerator: str) -> None:
    """Weights come on chip once for all of them, as with --batch."""
    one, eight = (over(images, op, OPERATORS[op]) for images in (1, 8))
    assert (eight.iterations, eight.macs) == (8 * one.iterations, 8 * one.macs)
    described = load_accelerator(accelerator)
    alone, batch = Scheduler(described), Scheduler(replace(described, batch=8))
    folded = alone.figures([alone.part(eight)])
    images = batch.figures([batch.part(one)])
    assert folded.macs == images.macs
    # A map that comes on chip in one piece waits for its first bits once.
    assert 0.6 < folded.latency_ms / images.latency_ms < 1.25
    assert folded.dram_read_bytes == pytest.approx(images.dram_read_bytes, rel=0.25)


def test_attention_has_heads_for_every_image() -> None:
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 16, 4])
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["q"]),
        helper.make_node("Attention", ["q", "q", "q"], ["a"]),
        helper.make_node("Reshape", ["a", "back"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in (("s", [4, 2, 16, 4]), ("back", [1, 8, 16, 4]))
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "windows", [shape], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    assert read_onnx(model).macs == 2 * 4 * 2 * 16 * 16 * 4
