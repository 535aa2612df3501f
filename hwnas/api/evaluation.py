"""Accuracy on a device: `evaluate`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hwnas.api.arguments import DeviceOptions, checked_flag, checked_path
from hwnas.api.compression import data_name
from hwnas.api.measure import device_profile
from hwnas.global_state import torch_as_before
from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.compress.emit.evaluation import Evaluation


def evaluate(
    checkpoint: str | os.PathLike[str],
    device: str = "cpu",
    *,
    data: Any,
    device_option: DeviceOptions = (),
    allow_code: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Run the test images through a device's own runtime, and compare with torch and with the model card.

    Args:
        checkpoint: the folder of one, or the `reference` of a run.
        device: a profile's name, or the path of a profile; one that tells outputs.
        data: as for `compress`; only its test part is looked at, and for int8 64 training images.
        device_option: over the device profile's options: `threads=1`, several of such, or a mapping.
        allow_code: import and call the `module:function` that a checkpoint of one's own network names.
        progress: hears how far it is.

    Raises:
        HwnasError: the network is not there or damaged, the data are not for it, or the device cannot run it
            or gives no outputs.

    >>> import hwnas
    >>> found = hwnas.evaluate("runs/a/checkpoints/steady-knee", "cpu-1", data="digits", allow_code=True)
    >>> found.quality == found.card, found.images  # fp32 in ONNX Runtime answers as torch does
    (True, 359)
    """
    from hwnas.compress.emit.evaluation import evaluate as run_evaluate

    folder = checked_path("checkpoint", checkpoint)
    profile = device_profile(device, None, device_option)
    is_allowed = checked_flag("allow_code", allow_code)
    with torch_as_before():
        return run_evaluate(folder, profile, data_name(data), progress or Progress(), allow_code=is_allowed)
