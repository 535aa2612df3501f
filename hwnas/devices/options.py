"""Options of a device profile, checked against what the device class knows."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.errors import DeviceError
from hwnas.measurement import DeviceProfile, Option
from hwnas.ranges import LARGEST_SIZE


def check_options(
    profile: DeviceProfile, device: str, **known: Option | tuple[str, ...]
) -> Mapping[str, Option]:
    """The profile's options with defaults filled in.

    Args:
        device: the device class, for messages.
        known: each option's default; or a tuple of the texts it may be, the first one the default.

    Raises:
        DeviceError: an option that is unknown, of another type than its default, none of its choices, or
            a number beyond all sense.
    """
    unknown = sorted(set(profile.options) - set(known))
    if unknown:
        raise DeviceError(
            f"profile {profile.name}: {device} has no option {unknown[0]!r}, only {', '.join(sorted(known))}",
            f"remove {unknown[0]} from the profile's options",
        )
    values: dict[str, Option] = {}
    for key, default in known.items():
        first = default[0] if isinstance(default, tuple) else default
        value = profile.options.get(key, first)
        if isinstance(first, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(default, tuple) and value not in default:
            raise DeviceError(
                f"profile {profile.name}: {key} is {value!r}", f"take one of {', '.join(default)}"
            )
        if type(value) is not type(first):
            raise DeviceError(
                f"profile {profile.name}: {key} is {value!r}, it must be a {type(first).__name__}",
                f"correct {key} in the profile's options",
            )
        if isinstance(value, int | float) and not abs(value) <= LARGEST_SIZE:
            raise DeviceError(
                f"profile {profile.name}: {key} is {value}, at most {LARGEST_SIZE} is meant by anybody",
                f"correct {key} in the profile's options",
            )
        values[key] = value
    return values
