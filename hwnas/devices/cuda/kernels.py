"""Which chips the installed torch has kernels for, and which torch has them for the others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hwnas.devices.cuda.calls import Gpu
from hwnas.errors import DeviceError

# The last torch on PyPI for chips of this capability up to the next: 2.8 went to CUDA 12.8, 2.11 to 13.
LAST_TORCH = {(5, 0): "2.7", (7, 0): "2.10"}
LAST_TORCH_CUDA_12_6 = "2.14"  # of builds that are not on PyPI, for all of them


def check_kernels(gpu: Gpu, architectures: Sequence[str], versions: str) -> None:
    """Refuse a GPU that the installed torch has no kernels for.

    Raises:
        DeviceError: with the version to install.
    """
    major, minor = gpu.capability
    if any(_runs_on(name, gpu.capability) for name in architectures):
        return
    last = [version for least, version in LAST_TORCH.items() if least <= gpu.capability]
    if gpu.capability > min((_capability(name) for name in architectures), default=(0, 0)):
        fix = "pip install --upgrade torch"
    elif last:
        fix = (
            f"pip install 'torch<={last[-1]}', or take PyTorch's own build for CUDA 12.6, "
            f"which torch has up to {LAST_TORCH_CUDA_12_6}"
        )
    else:
        fix = "take another GPU: no torch that hwnas works with has kernels for it"
    raise DeviceError(
        f"the installed {versions} has no kernels for {gpu.name} (sm_{major}{minor}), "
        f"only for {', '.join(architectures)}",
        fix,
    )


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether what was compiled for an architecture runs on a chip.

    Kernels of `sm_XY` run on every chip of the same X whose Y is not smaller; `compute_XY` is compiled on
    the spot for any later chip; a letter `a` behind either binds it to that very chip, `f` to its X.
    Source: CUDA C++ Programming Guide, Compute Capabilities.
    """
    made_for = _capability(architecture)
    if architecture.endswith("a"):
        return made_for == capability
    if architecture.startswith("sm_") or architecture.endswith("f"):
        return made_for[0] == capability[0] and made_for <= capability
    return made_for <= capability


def _capability(name: str) -> tuple[int, int]:
    """(8, 0) of `sm_80`, (10, 0) of `compute_100a`."""
    digits = re.sub(r"\D", "", name)
    return int(digits[:-1]), int(digits[-1])
