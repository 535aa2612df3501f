"""No value of an image reaches Python, by whatever way: each would decide what a graph keeps."""

from __future__ import annotations

import copy
import ctypes
import io
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.errors import InputError
from hwnas.networks.control_flow import require_no_decisions

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Deciding(nn.Module):
    """Does more or less, as a function of its features says."""

    def __init__(self, asks: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.stem, self.more = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = functional.relu(self.stem(x))
        return self.more(features) if self.asks(features) else features


def refusal(asks: Callable[[Tensor], Any]) -> str:
    with pytest.raises(InputError) as error:
        require_no_decisions(Deciding(asks).eval(), X)
    assert "test_control_flow.py line" in error.value.cause
    assert "torch.where" in error.value.fix
    return error.value.cause


SIZES: dict[str, Callable[[Tensor], Any]] = {
    "ones_like": lambda h: torch.ones_like(h[h > 0.5]).sum() > 10**6,
    "cumsum": lambda h: torch.cumsum(torch.ones_like(torch.nonzero(h > 0.5)[:, 0]), 0)[-1] > 10**6,
    "full": lambda h: torch.full(h[h > 0.5].shape, 1.0).sum() > 10**6,
    "iterated": lambda h: sum(1 for _ in h[h > 0.5]) > 10**6,
    "unbind": lambda h: len(h[h > 0.5].unbind()) > 10**6,
    "chunk": lambda h: len(h[h > 0.5].chunk(10)) > 10**6,
    "nbytes": lambda h: h[h > 0.5].nbytes > 10**8,
    "numel": lambda h: torch.numel(h[h > 0.5]) > 10**8,
    "stride": lambda h: torch.nonzero(h > 0.5).T.contiguous().stride()[0] > 10**6,
    "where": lambda h: torch.where(h > 0.5)[0].size(dim=0) > 10**6,
    "argwhere": lambda h: torch.argwhere(h > 0.5).size(dim=0) > 10**6,
    "masked_select": lambda h: torch.masked_select(h, h > 0.5).size(0) > 10**6,
    "unique": lambda h: torch.unique(h.round()).numel() > 10**6,
    "unique_consecutive": lambda h: torch.unique_consecutive(h.round()).numel() > 10**6,
    "bincount": lambda h: torch.bincount((h.flatten() * 3).long()).shape[0] > 10**6,
    "repeat_interleave": lambda h: len(h[0, 0, 0].repeat_interleave((h[0, 0, 0] * 5).long())) > 10**6,
    "sparse": lambda h: h[0, 0].to_sparse()._nnz() > 10**6,
    "uint8": lambda h: len(h[(h > 0.5).to(torch.uint8)]) > 10**6,
    "packed": lambda h: (
        len(nn.utils.rnn.pack_padded_sequence(h[0], 1 + (h[0, :, 0, 0] > 0.5).long(), True, False).data) > 99
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_depends_on_values_is_refused(name: str) -> None:
    assert "a tensor whose size depends on the values of the image" in refusal(SIZES[name])


def saved(h: Tensor) -> bool:
    stream = io.BytesIO()
    torch.save(h.mean(), stream)
    stream.seek(0)
    return bool(torch.load(stream).item() > 9)


def applied(h: Tensor) -> bool:
    seen: list[float] = []
    h.mean().clone().apply_(lambda value: seen.append(value) or value)  # type: ignore[func-returns-value]
    return seen[0] > 9


def lent(h: Tensor) -> bool:
    constant = torch.zeros(())
    constant.data = h.mean()
    return constant.item() > 9


def caught(h: Tensor) -> bool:
    try:
        return bool(h.mean() > 9)
    except Exception:
        return False


VALUES: dict[str, Callable[[Tensor], Any]] = {
    "untyped_storage": lambda h: h.untyped_storage()[3] > 300,
    "storage": lambda h: h.storage()[3] > 9,  # type: ignore[no-untyped-call]
    "data_ptr": lambda h: ctypes.cast(h.data_ptr(), ctypes.POINTER(ctypes.c_float))[5] > 9,
    "str": lambda h: "inf" in str(h.mean()),
    "repr": lambda h: "inf" in repr(h.mean()),
    "format": lambda h: "inf" in f"{h[0, 0, 0]}",
    "percent": lambda h: "inf" in "%s" % h.mean(),  # noqa: UP031
    "save": saved,
    "pickle": lambda h: len(pickle.dumps(h)) > 10**8,
    "reduce": lambda h: h.__reduce_ex__(2) is None,  # type: ignore[no-untyped-call]
    "dlpack": lambda h: torch.utils.dlpack.from_dlpack(torch._C._to_dlpack(h)).mean().item() > 9,
    "numpy_dlpack": lambda h: np.from_dlpack(h).mean() > 9,
    "numpy": lambda h: np.sum(h.detach().cpu().numpy()) > 9,
    "tolist": lambda h: max(h.flatten().tolist()) > 9,
    "apply": applied,
    "map": lambda h: h.clone().map_(h, lambda a, _: a) is None,
    "deepcopy": lambda h: copy.deepcopy(h.mean()).item() > 9,
    "copy": lambda h: copy.copy(h.mean()).item() > 9,
    "parameter": lambda h: nn.Parameter(h.mean()).item() > 9,
    "memory": lent,
    "as_tensor": lambda h: torch.as_tensor([h.mean(), h.max()]).tolist()[0] > 9,
    "tensor": lambda h: torch.tensor([h.mean(), h.max()]).tolist()[0] > 9,
    "asarray": lambda h: torch.asarray([h.mean(), h.max()]).tolist()[0] > 9,
    "new_tensor": lambda h: torch.zeros(1).new_tensor([h.mean(), h.max()]).tolist()[0] > 9,
    "new": lambda h: torch.zeros(1).new([h.mean(), h.max()]).tolist()[0] > 9,
    "tensor_split": lambda h: len(h.flatten().tensor_split((h[0, 0, 0] * 9).long())[0]) > 10**6,
    "caught": caught,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_leaves_torch_is_refused(name: str) -> None:
    assert "asks for a value that depends on the image" in refusal(VALUES[name])


def raises(check: Callable[[Tensor], Any]) -> Callable[[Tensor], bool]:
    def asks(h: Tensor) -> bool:
        try:
            check(h)
        except Exception:
            return False
        return True

    return asks


@pytest.mark.parametrize(
    "check",
    [
        lambda h: torch.linalg.cholesky(h[0, 0]),
        lambda h: torch.linalg.inv(h[0, 0]),
        lambda h: torch.linalg.solve(h[0, 0], h[0, 1]),
        lambda h: torch._assert_async(h.mean() < 9),
    ],
)
def test_an_exception_by_values_is_refused(check: Callable[[Tensor], Any]) -> None:
    assert "lets torch check values that depend on the image" in refusal(raises(check))


def in_a_thread(h: Tensor) -> bool:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(h.mean().item() > 9))
    thread.start()
    thread.join()
    return found[0]


def test_another_thread_is_refused() -> None:
    assert "another thread" in refusal(in_a_thread)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        assert "another thread" in refusal(lambda h: pool.submit(lambda: h.mean().item() > 9).result())
        assert pool.submit(int).result() == 0


def constant_masks(h: Tensor) -> bool:
    channels = torch.zeros(h.shape[1], dtype=torch.bool)
    channels[:4] = True
    return (
        h[:, channels].shape[1] == 4
        and torch.masked_select(h, torch.ones_like(h[:, :1]).bool()).numel() == h.numel()
        and torch.nonzero(torch.ones(4)).shape[0] == 4
        and torch.repeat_interleave(h, torch.ones(8, dtype=torch.long), 1).shape[1] == 8
        and torch.ones_like(h).sum().item() == h.numel()
        and "0." in str(torch.zeros(3))
        and h.new_tensor([h.shape[2], 5]).tolist() == [h.shape[2], 5]
    )


def metadata(h: Tensor) -> bool:
    return bool(
        h.stride()[-1] == h.storage_offset() + 1 == 1
        and h.is_contiguous()
        and torch.is_floating_point(h)
        and h.dtype == torch.result_type(h, h) == torch.float32
        and h.type() == "torch.FloatTensor"
        and h.numel() == torch.numel(h) == h.nbytes // h.element_size()
        and len(h) == h.size(0) == 1
        and h.dim() == h.ndim == 4
        and hash(h) == hash(h)
        and h.device == torch.device("cpu")
    )


def parts(h: Tensor) -> bool:
    return len(list(h[0])) == len(h.unbind(1)) == len(h.chunk(8, 1)) == len(h.tensor_split(8, 1)) == 8


def computed(h: Tensor) -> bool:
    changed = h.clone()
    changed[h > 0.5] = 0
    chosen = h[:, h.mean((0, 2, 3)).argsort()]
    best, _ = copy.copy(h).topk(3, 1)
    maximum = torch.max(copy.deepcopy(h), dim=1)
    return changed.shape == chosen.shape and best.shape[1] == 3 and maximum.values.dim() == 3


@pytest.mark.parametrize("asks", [constant_masks, metadata, parts, computed], ids=lambda asks: asks.__name__)
def test_what_is_the_same_for_every_image_is_taken(asks: Callable[[Tensor], Any]) -> None:
    decided: list[bool] = []
    require_no_decisions(Deciding(lambda h: decided.append(asks(h))).eval(), X)
    assert decided == [True]
