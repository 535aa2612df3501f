"""Where networks are trained. torch's device `meta`, which has no values, stands for a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from workplace import tinynet

from hwnas.compress.partition import partition
from hwnas.compress.place import require_network
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
    modules = partition(tinynet.seeded(), SHAPE).modules
    require_network(META, modules, SHAPE)
    assert {value.device.type for module in modules for value in module.state_dict().values()} == {"cpu"}
    staying = (nn.Conv2d(3, 8, 1), Staying())
    require_network("cpu", staying, SHAPE)
    with pytest.raises(InputError, match="the network cannot be computed on meta") as error:
        require_network(META, staying, SHAPE)
    assert "--train-on cpu" in error.value.fix
