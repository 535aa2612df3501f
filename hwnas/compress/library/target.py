"""A device that a run is for, and what has to be known of it before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.compress.data import Data
from hwnas.compress.data.dataset import at_shape
from hwnas.devices.base import Device
from hwnas.errors import (
    DeviceError,
    InputError,
    NetworkFormError,
    PreparationError,
    is_out_of_memory,
    memory_error,
)
from hwnas.measurement import DeviceProfile, Protocol
from hwnas.network import Network
from hwnas.profiles.catalogue import open_device

CALIBRATION_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device profile and the protocol by which its search measures.

    Attributes:
        cluster: address of the Ray cluster that has the device; empty where it hangs on this machine.
        is_later: it may not be there yet, so nothing is asked of it before its search.
    """

    profile: DeviceProfile
    protocol: Protocol
    cluster: str = ""
    is_later: bool = False


def require_runs(target: Target, network: Network, *, energy: bool) -> None:
    """Prepare the reference on a device before anything is trained for it.

    A queue is not asked, since its jobs cost; nor is a device that is not there, is in use, or is for later.

    Args:
        network: the reference, trained or not.
        energy: whether the device has to tell a network's energy.

    Raises:
        InputError: the device cannot run the reference, or does not tell what a network needs.
    """
    device = open_device(target.profile, target.cluster)
    if target.is_later or not isinstance(device, Device):
        return
    device.lock_wait_s = 0.0
    name = target.profile.name
    try:
        with device:
            handle = device.prepare(network)
    except DeviceError:
        return
    except (PreparationError, NetworkFormError) as error:
        if is_out_of_memory(error):
            raise memory_error(error) from None
        raise InputError(
            f"device {name} cannot run the reference: {error.cause}. Nothing was trained",
            f"{error.fix}; if only the operators of some parts are to blame, name them in "
            f"forbidden_operators of the profile {name}, and the search does without those parts",
        ) from None
    if energy and "energy_mj" not in handle.metrics:
        raise InputError(f"{name} tells no energy", "take the objective latency, or a simulator")


def calibration_images(data: Data, shape: tuple[int, int, int]) -> np.ndarray:
    """Return normalised training images (N, C, H, W), by which networks are quantised.

    Args:
        shape: (C, H, W); images of another size are scaled to it.
    """
    plain = at_shape(data.plain_inputs(data.train, slice(CALIBRATION_IMAGES)), shape)
    images: np.ndarray = data.normalize(plain).contiguous().numpy()
    return images
