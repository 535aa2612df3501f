"""Whether a network's forward() decides by what it computes, of which a graph would keep one way."""

from __future__ import annotations

import copy
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from hwnas.errors import InputError, first_line
from hwnas.network import plain_attention
from hwnas.networks.tensors import only_raises, sized_by, written

TORCH, NETWORKS = str(Path(torch.__file__).parent), str(Path(__file__).parent)
VALUE = "asks for a value that depends on the image"
METADATA = frozenset(
    (
        *("__dlpack_device__", "__hash__", "__iter__", "__len__", "can_cast", "dim", "dim_order"),
        *("element_size", "get_device", "has_names", "ndimension", "nelement", "numel", "register_hook"),
        *("result_type", "size", "storage_offset", "stride", "type"),
    )
)
"""What torch tells of a tensor without a look at its values, besides `is_…` and what is no function."""

COPYING = ("__deepcopy__", "as_tensor", "asarray", "new", "new_tensor", "tensor")
"""What copies values into a tensor without an operation that a dispatch mode sees."""

CALLING = (Tensor.apply_, Tensor.map_, Tensor.map2_)  # they give each value to a function of Python's


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
    watch = _Watch(x)
    try:
        with plain_attention(), _threads_refused(watch), watch, _WatchNumbers(watch):
            model(x)
    except Exception as error:  # it runs without being watched
        raise watch.refusal or InputError(
            f"whether {type(model).__name__} branches on values cannot be found out: {first_line(error)}",
            "write its forward() without torch.jit.script and without code of its own for tensors",
        ) from None
    if watch.refusal is not None:  # and forward() has caught it
        raise watch.refusal


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own hooks have no types
    """Knows which tensors were computed from the input, and sees what becomes a number or a size."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refusal: InputError | None = None
        self._computed = WeakTensorKeyDictionary()
        self._memory: dict[int, StorageWeakRef] = {}  # by address, which another one may have later
        self.add(x)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self.any_computed((args, kwargs)) or _only_reads_sizes(func):
            return func(*args, **kwargs)
        if self.any_computed(sized_by(func, args, kwargs)):
            self.refuse("asks for a tensor whose size depends on the values of the image")
        if only_raises(func):
            self.refuse("lets torch check values that depend on the image")
        output = func(*args, **kwargs)
        for value in tree_leaves(output):
            if isinstance(value, bool | int | float | complex):
                self.refuse()
            elif isinstance(value, Tensor):
                self.add(value)
        for value in written(func, args, kwargs):
            self.add(value)
        return output

    def add(self, value: Tensor) -> None:
        """Take a tensor, and whatever lies in its memory, for one that depends on the input."""
        self._computed[value] = None
        if value.layout == torch.strided and (address := value.untyped_storage().data_ptr()):
            self._memory[address] = StorageWeakRef(value.untyped_storage())  # type: ignore[no-untyped-call]

    def any_computed(self, values: Any) -> bool:
        """Whether a tensor among values, lists and tuples of them depends on the input."""
        return any(isinstance(value, Tensor) and self._is_computed(value) for value in tree_leaves(values))

    def _is_computed(self, value: Tensor) -> bool:
        if value in self._computed or value.layout != torch.strided:
            return value in self._computed
        memory = self._memory.get(value.untyped_storage().data_ptr())
        return memory is not None and not memory.expired()  # type: ignore[no-untyped-call]

    def refuse(self, what: str = VALUE) -> NoReturn:
        """Raise InputError, and keep it, since forward() may catch it."""
        error = InputError(
            f"the network's forward() {what} ({source_line()}), "
            "and its graph would do for every image what it did for the first",
            "compute with tensors there, such as torch.where(condition, a, b) instead of if, "
            "and leave out checks of values",
        )
        self.refusal = self.refusal or error
        raise error


def _only_reads_sizes(func: Callable[..., Any]) -> bool:
    name = getattr(func, "_opname", "")
    return bool(name.endswith("_like") or name.startswith("new_"))


class _WatchNumbers(TorchFunctionMode):
    """Sees values leave torch for Python, NumPy, text or files, which the other does not."""

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
        kwargs = kwargs or {}
        if not self._watch.any_computed((args, kwargs)):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if func in CALLING or (name == "tensor_split" and self._watch.any_computed((args[1:], kwargs))):
            self._watch.refuse()
        output = func(*args, **kwargs)
        source = args[1:] if name.startswith("new") else args
        if name in COPYING and self._watch.any_computed((source, kwargs)):
            self._watch.add(output)
        harmless = name in METADATA or name.lstrip("_").startswith("is_") or name == "__get__"
        if not harmless and not _has_only_tensors(output) and not _is_copied(name):
            self._watch.refuse()
        return output


def _has_only_tensors(output: Any) -> bool:
    if isinstance(output, tuple | list):
        return all(map(_has_only_tensors, output))
    return output is None or isinstance(output, Tensor)


def _is_copied(name: str) -> bool:
    """Whether what is asked for is in the hands of copy.copy(), which makes a tensor of it again."""
    stack = traceback.walk_stack(None)
    return name == "untyped_storage" and any(f.f_code.co_filename == copy.__file__ for f, _ in stack)


@contextmanager
def _threads_refused(watch: _Watch) -> Iterator[None]:
    """Refuse work that is given to another thread, where neither mode would see it."""
    own = threading.get_ident()

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == own:
                watch.refuse("computes in another thread, which may ask for values that depend on the image")
            return function(*args, **kwargs)

        return call

    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    threading.Thread.start = refusing(start)  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = refusing(submit)  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]


def source_line() -> str:
    """The innermost line that is neither torch's nor hwnas's own."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith((TORCH, NETWORKS))]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}: `{frames[-1].line}`"
