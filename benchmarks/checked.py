"""The network whose latency this repository checks on itself: `make check-latency`."""

from __future__ import annotations

from torch import nn


def mobilenet() -> nn.Module:
    """MobileNetV3-Small, exported by the code of the revision that is checked."""
    import timm

    model: nn.Module = timm.create_model("mobilenetv3_small_100")
    model.input_shape = (3, 224, 224)  # type: ignore[assignment]
    return model
