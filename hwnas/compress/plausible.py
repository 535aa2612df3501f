"""What a device can have answered: a latency far below what the arithmetic allows is its error."""

from __future__ import annotations

from hwnas.measurement import Measurement

FACTOR = 100
"""MACs and latency disagree by a factor of 2 to 10 between networks of one device, never by this."""


def implausible(measurement: Measurement, macs_ratio: float) -> str | None:
    """Why a measurement cannot be right; None where it can.

    A latency that is too high needs no check: such a network loses against the reference by itself.

    Args:
        macs_ratio: MACs of the network, in units of the reference's.
    """
    if measurement.anchor_ratio * FACTOR >= macs_ratio:
        return None
    return (
        f"{measurement.latency_ms:.3g} ms is {measurement.anchor_ratio:.3g} of the anchor's latency, with "
        f"{macs_ratio:.3g} of the MACs: the device's clock erred; the same command measures it again"
    )
