"""Where networks are trained and judged: on the CPU, or on a GPU.

Outside of training every module and every tensor is on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from hwnas.compress.settings import Place
from hwnas.errors import InputError, first_line, is_out_of_memory, memory_error

FLOATS_OF_A_VECTOR = 16
"""Of AVX-512."""


def find_place() -> Place:
    """A GPU where torch reaches one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_place(place: Place) -> None:
    """Make sure that torch can compute there.

    Raises:
        InputError: it cannot.
    """
    try:
        torch.ones(1, device=place).add(1)
    except (RuntimeError, AssertionError) as error:  # builds of torch without CUDA assert that they have it
        raise InputError(
            f"nothing can be trained on {place}: {first_line(error)}",
            "mend that, or begin another run on the CPU: --train-on cpu --out PATH",
        ) from None


def require_network(place: Place, module: nn.Module, input_shape: Sequence[int]) -> None:
    """Make sure that a network can be computed there.

    Some do not follow: a tensor that is no parameter and no buffer stays on the CPU.

    Args:
        input_shape: (C, H, W).

    Raises:
        InputError: they cannot.
    """
    if place == "cpu":
        return
    try:
        x = torch.zeros(2, *input_shape, device=place)
        with torch.no_grad():
            deepcopy(module).to(place)(x)
    except Exception as error:  # of whatever the network consists of
        raise InputError(
            f"the network cannot be computed on {place}: {first_line(error)}",
            "begin another run on the CPU: --train-on cpu --out PATH; or let the network make its tensors "
            "where its input is",
        ) from None


@contextmanager
def explained_memory() -> Iterator[None]:
    """Where memory ends, that is told as a failure that a user meets.

    Raises:
        HwnasError: it ended.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise memory_error(error) from None


def give_back_memory(place: Place) -> None:
    """Leave the memory of a GPU that nothing needs any more to other processes, which measure there."""
    if place == "cuda":
        torch.cuda.empty_cache()


def channels_last(module: nn.Module, place: Place = "cpu") -> nn.Module:
    """The module itself, there, with the layout in which networks are trained fastest.

    Strided 1x1 convolutions of few channels keep the other layout: in this one oneDNN 3.13 computes a wrong
    gradient of their weights and writes beyond its memory (github.com/uxlfoundation/oneDNN/issues/6035).
    """
    module.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for conv in module.modules():
        if (
            isinstance(conv, nn.Conv2d)
            and conv.kernel_size == (1, 1)
            and conv.stride != (1, 1)
            and conv.groups == 1
            and conv.in_channels < FLOATS_OF_A_VECTOR
        ):
            conv.weight.data = _channels_first(conv.weight.data)
            if _first_argument_channels_first not in conv._forward_pre_hooks.values():
                conv.register_forward_pre_hook(_first_argument_channels_first)
    return module


def _first_argument_channels_first(_: nn.Module, arguments: tuple[Tensor]) -> Tensor:
    return _channels_first(arguments[0])


def _channels_first(x: Tensor) -> Tensor:
    """A copy, whose strides say so where one channel or one pixel leaves them open."""
    return x.clone(memory_format=torch.contiguous_format)


@contextmanager
def placed(place: Place, *modules: nn.Module) -> Iterator[None]:
    """Modules are there, channels last, until the end; then on the CPU again.

    Raises:
        HwnasError: memory ended.
    """
    try:
        with explained_memory():
            for module in modules:
                channels_last(module, place)
            yield
    finally:
        if place != "cpu":
            for module in modules:
                module.cpu()
            give_back_memory(place)


class GraphPool:
    """Lets modules on a GPU be trained by CUDA graphs: the kernels of a pass are started together.

    A small block's kernels are so short that a GPU would wait for each start. The graphs share one memory, so
    the modules have to be trained by turns, in the order in which they were added.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        # Capturing makes them in a stream of its own, and every gradient waits for it as it has to.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")

    def add(self, module: nn.Module, input_shapes: Sequence[Sequence[int]]) -> None:
        """Change a module in place; in eval mode it computes as before.

        Args:
            module: in train mode; what it does must depend on the values of its input and weights alone.
            input_shapes: (B, C, ...) of each input, which every batch of the training has.
        """
        state = {key: value.clone() for key, value in module.state_dict().items()}
        samples = tuple(torch.zeros(*shape, device="cuda") for shape in input_shapes)
        torch.cuda.make_graphed_callables(module, samples, pool=self._pool)
        module.load_state_dict(state)  # capturing runs it, which moves the statistics of batch normalisation
