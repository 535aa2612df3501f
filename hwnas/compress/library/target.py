"""A device that a run is for, and what has to be known of it before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.compress.data import Data
from hwnas.devices.base import Device
from hwnas.errors import InputError, NetworkFormError, PreparationError
from hwnas.measurement import DeviceProfile, Protocol
from hwnas.network import Network
from hwnas.profiles.catalogue import open_device

CALIBRATION_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device profile and the protocol by which its search measures.

    Attributes:
        cluster: address of the Ray cluster that has the device; empty where it hangs on this machine.
    """

    profile: DeviceProfile
    protocol: Protocol
    cluster: str = ""


def require_energy(target: Target, network: Network) -> None:
    """Refuse the objective energy before anything is trained for it.

    A queue is not asked, since its jobs cost, and neither is a device that cannot run this network.

    Raises:
        InputError: the device does not tell what a network needs.
    """
    device = open_device(target.profile, target.cluster)
    if not isinstance(device, Device):
        return
    with device:
        try:
            handle = device.prepare(network)
        except (PreparationError, NetworkFormError):
            return
        device.release(handle)
    if "energy_mj" not in handle.metrics:
        raise InputError(
            f"{target.profile.name} tells no energy", "take the objective latency, or a simulator"
        )


def calibration_images(data: Data) -> np.ndarray:
    """Return normalised training images (N, C, H, W), by which networks are quantised."""
    images: np.ndarray = data.normalize(data.train.pixels[:CALIBRATION_IMAGES]).contiguous().numpy()
    return images
