"""Where networks are trained. torch's device `meta`, which has no values, stands for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from workplace import tinynet

from hwnas.compress.training.placement import require_network
from hwnas.errors import InputError

META: Any = "meta"
SHAPE = (3, 32, 32)


class Staying(nn.Module):
    """Adds a tensor that is no buffer, and does not come along."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.ones(1, 8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset.to("cpu")


def test_a_network_that_stays_on_the_cpu_is_refused_elsewhere() -> None:
    module = tinynet.seeded()
    require_network(META, module, SHAPE)
    assert {value.device.type for value in module.state_dict().values()} == {"cpu"}
    staying = nn.Sequential(nn.Conv2d(3, 8, 1), Staying())
    require_network("cpu", staying, SHAPE)
    with pytest.raises(InputError, match="the network cannot be computed on meta") as error:
        require_network(META, staying, SHAPE)
    assert "--train-on cpu" in error.value.fix


GRADIENTS = """
import sys

import torch
from torch import nn

from hwnas.compress.training.placement import channels_last
from hwnas.compress.training.loop import tune_allocator

torch.set_num_threads(2)
tune_allocator()
for channels in (1, 3, 12, 16):
    for side in (32, 96):
        conv = nn.Conv2d(channels, 64, 1, stride=2, bias=False)
        exact = nn.Conv2d(channels, 64, 1, stride=2, bias=False, dtype=torch.float64)
        exact.load_state_dict(conv.state_dict())
        for _ in range(2):
            conv = channels_last(conv)
        for _ in range(4):
            conv.zero_grad()
            exact.zero_grad()
            x = torch.randn(8, channels, side, side).contiguous(memory_format=torch.channels_last)
            y = conv(x)
            y.backward(torch.ones_like(y))
            exact(x.double()).sum().backward()
            torch.testing.assert_close(conv.weight.grad.double(), exact.weight.grad, rtol=1e-4, atol=1e-2)
        assert len(conv._forward_pre_hooks) == (channels < 16)
"""


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["AVX2", "DEFAULT"])
def test_gradients_of_a_strided_pointwise_convolution_are_right_on_any_cpu(isa: str) -> None:
    """In a process of its own: memory that is overwritten ends it."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa}
    done = subprocess.run(
        [sys.executable, "-c", GRADIENTS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
