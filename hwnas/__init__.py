"""hwnas: measure whole networks on real devices and compress them for those devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwnas.version import __version__

if TYPE_CHECKING:
    import os

    from torch import nn

    from hwnas.compress.data import Data, Images
    from hwnas.compress.data.task import Metric, Task

__all__ = ["Data", "Images", "Metric", "Task", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only where it is used."""
    if name in ("Data", "Images"):
        from hwnas.compress import data

        return getattr(data, name)
    if name in ("Metric", "Task"):
        from hwnas.compress.data import task

        return getattr(task, name)
    raise AttributeError(f"module 'hwnas' has no attribute {name!r}")


def load(path: str | os.PathLike[str], *, allow_code: bool = False) -> nn.Module:
    """Read an emitted checkpoint directory back as a torch module in eval mode.

    Args:
        path: the checkpoint directory, holding `architecture.json` and `model.safetensors`.
        allow_code: import and call the `module:function` that a checkpoint of one's own network names.

    Raises:
        InputError: a file is missing, damaged, or names code that is not allowed or cannot be imported.
    """
    from hwnas.networks.serialize import load_module

    return load_module(path, allow_code=allow_code)
