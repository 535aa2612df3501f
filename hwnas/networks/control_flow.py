"""Whether a network's forward() decides by what it computes, of which a graph would keep one way."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, UntypedStorage, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from hwnas.errors import InputError, first_line
from hwnas.network import plain_attention
from hwnas.networks.tensors import written

TORCH, NETWORKS = str(Path(torch.__file__).parent), str(Path(__file__).parent)
LEAVING = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__)
SIZES = (Tensor.size, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.shape.__get__)  # type: ignore[attr-defined]


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
    try:
        with plain_attention(), _Watch(x) as watch, _WatchNumbers(watch):
            model(x)
    except InputError:
        raise
    except Exception as error:  # it runs without being watched
        raise InputError(
            f"whether {type(model).__name__} branches on values cannot be found out: {first_line(error)}",
            "write its forward() without torch.jit.script and without code of its own for tensors",
        ) from None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hooks have no types
    """Knows which tensors were computed from the input, and sees what becomes a number of Python's."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._computed = WeakTensorKeyDictionary()
        self._computed[x] = None
        self._sized = WeakTensorKeyDictionary()  # the sizes themselves depend on the input's values
        self._written: dict[int, UntypedStorage] = {}  # kept, lest another one takes its address

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if any(self.is_computed(value) for value in inputs) and not _only_reads_sizes(func):
            sized = _sizes_by_values(func, args) or any(self.is_sized(value) for value in inputs)
            for value in tree_leaves(output):
                if isinstance(value, bool | int | float | complex):
                    _refuse()
                elif isinstance(value, Tensor):
                    self._computed[value] = None
                    if sized:
                        self._sized[value] = None
            for value in written(func, args, kwargs or {}):
                self._written[value.untyped_storage().data_ptr()] = value.untyped_storage()
        return output

    def is_computed(self, value: Tensor) -> bool:
        """Whether a tensor depends on the input, by its own or by what was written into its memory."""
        if value in self._computed or not self._written or value.layout != torch.strided:
            return value in self._computed
        return value.untyped_storage().data_ptr() in self._written

    def is_sized(self, value: Tensor) -> bool:
        """Whether the sizes of a tensor may depend on the input's values, as those of `x[x > 0]` do."""
        return value in self._sized


def _only_reads_sizes(func: Callable[..., Any]) -> bool:
    name = getattr(func, "_opname", "")
    return bool(name.endswith("_like") or name.startswith("new_"))


def _sizes_by_values(func: Callable[..., Any], args: Sequence[Any]) -> bool:
    if torch.Tag.dynamic_output_shape not in getattr(func, "tags", ()):
        return False
    if getattr(func, "_opname", "") not in ("index", "index_put"):
        return True
    masks = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, Tensor)]
    return any(mask.dtype in (torch.bool, torch.uint8) for mask in masks)


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
        if func in SIZES and self._watch.is_sized(args[0]):
            _refuse("the size of a tensor, which depends on the values of the image,")
        return func(*args, **(kwargs or {}))


def _refuse(what: str = "a value that depends on the image") -> NoReturn:
    raise InputError(
        f"the network's forward() asks for {what} ({source_line()}), "
        "and its graph would do for every image what it did for the first",
        "compute with tensors there, such as torch.where(condition, a, b) instead of if, "
        "and leave out checks of values",
    )


def source_line() -> str:
    """The innermost line that is neither torch's nor hwnas's own."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith((TORCH, NETWORKS))]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}: `{frames[-1].line}`"
