"""The device and protocol that settings name, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwnas.compress.library.target import Target
from hwnas.compress.quality.kinds import quality_kind
from hwnas.compress.search.pick import check_rule
from hwnas.compress.search.strategies import STRATEGIES
from hwnas.compress.settings import SearchSettings
from hwnas.measurement import DeviceProfile, Option
from hwnas.profiles.catalogue import load_profile, open_device, with_options
from hwnas.profiles.forbidden import check_forbidden
from hwnas.profiles.protocols import load_protocol
from hwnas.profiles.session import require_kind


def target_of(settings: SearchSettings, cluster: str = "", *, is_later: bool = False) -> Target:
    """Find the device and protocol that the settings name; what else they name is checked as well.

    Args:
        cluster, is_later: as in `Target`.

    Raises:
        InputError, DeviceError: unknown, refused, or its latencies mean nothing (an emulator).
    """
    STRATEGIES.load(settings.strategy)
    quality_kind(settings.quality)
    for rule in settings.picks:
        check_rule(rule, settings.objectives)
    profile = profile_of(
        settings.device,
        settings.batch,
        settings.device_options,
    )
    require_kind(open_device(profile), {"measured", "modelled"}, "a search")
    check_forbidden(profile)
    protocol = load_protocol(settings.protocol)
    return Target(profile=profile, protocol=protocol, cluster=cluster, is_later=is_later)


def profile_of(device: str, batch: int | None, options: Mapping[str, Option]) -> DeviceProfile:
    """Load a device's profile with what the command says of it; see `SearchSettings`.

    Raises:
        InputError: unknown.
    """
    profile = with_options(with_options(load_profile(device), **options), batch=batch)
    if batch is None:
        return profile
    return replace(profile, name=f"{profile.name}-batch-{batch}")  # a folder of its own
