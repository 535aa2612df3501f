"""Whether a network's forward() decides by what it computes, of which a graph would keep one way."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from hwnas.errors import InputError

TORCH = str(Path(torch.__file__).parent)
LEAVING = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__)


@torch.no_grad()
def require_no_decisions(model: nn.Module, x: Tensor) -> None:
    """Refuse a model that asks for a number that depends on its input, as `if x.mean() > 0` does.

    A number out of a weight or a shape is the same for every image, and is taken.

    Args:
        model: in eval mode.
        x: a batch (N, C, H, W) that it can take.

    Raises:
        InputError: it asks for one; the cause has the line of its source.
    """
    x = x.clone()
    with _Watch(x) as watch, _WatchNumbers(watch):
        model(x)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hooks have no types
    """Knows which tensors were computed from the input, and sees what becomes a number of Python's."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._computed = WeakTensorKeyDictionary()
        self._computed[x] = None

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if any(self.is_computed(value) for value in inputs):
            for value in tree_leaves(output):
                if not isinstance(value, Tensor):
                    _refuse()
                self._computed[value] = None
        return output

    def is_computed(self, value: Tensor) -> bool:
        """Whether a tensor depends on the input."""
        return value in self._computed


class _WatchNumbers(TorchFunctionMode):
    """Sees tensors leave torch for NumPy or Python, which the other does not."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in LEAVING and self._watch.is_computed(args[0]):
            _refuse()
        return func(*args, **(kwargs or {}))


def _refuse() -> NoReturn:
    raise InputError(
        f"the network's forward() asks for a value that depends on the image ({_line()}), "
        "and its graph would do for every image what it did for the first",
        "compute with tensors there, such as torch.where(condition, a, b) instead of if, "
        "and leave out checks of values",
    )


def _line() -> str:
    """The innermost line that is not torch's own."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith((TORCH, __file__))]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}: `{frames[-1].line}`"
