"""What a run will ask of its device, known before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwnas.compress.front import target_of
from hwnas.compress.settings import SearchSettings
from hwnas.devices.queue import QueueDevice
from hwnas.errors import InputError
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.protocols import REPORT, queued


@dataclass(frozen=True, kw_only=True)
class Plan:
    """At most what a run measures; what its run directory knows already is not asked again.

    Attributes:
        networks: of the search, the reference among them.
        checkpoints: networks measured at the end, the reference among them.
        jobs: that a device with a queue is given; None for any other device.
        needs_consent: so many networks that somebody must have agreed to them.
    """

    device: str
    networks: int
    checkpoints: int
    jobs: int | None
    needs_consent: bool

    def describe(self) -> str:
        """One line for people."""
        text = f"{self.device}: at most {self.networks} networks in the search, {self.checkpoints} afterwards"
        return text if self.jobs is None else f"{text}, {self.jobs} jobs in all"


def plan_of(settings: SearchSettings) -> Plan:
    """The plan of a run with these settings.

    Raises:
        InputError, DeviceError: the device or the protocol is unknown or refused.
    """
    target = target_of(settings)
    device = open_device(target.profile)
    networks = settings.population * settings.generations if settings.measures else 0
    if settings.max_measurements is not None:
        networks = min(networks, settings.max_measurements)
    checkpoints = len(settings.picks) + 1
    jobs = None
    if isinstance(device, QueueDevice):
        jobs = networks * (device.preparation_jobs + queued(target.protocol).max_repeats)
        jobs += checkpoints * (device.preparation_jobs + queued(REPORT).max_repeats)
    return Plan(
        device=target.profile.name,
        networks=networks,
        checkpoints=checkpoints,
        jobs=jobs,
        needs_consent=device.unconfirmed is not None
        and settings.max_measurements is None
        and networks > device.unconfirmed,
    )


def require_consent(plan: Plan, ask: Callable[[str], bool]) -> None:
    """Let nobody pay for many measurements by surprise.

    Args:
        ask: puts a question to the user; False where there is nobody to ask.

    Raises:
        InputError: nobody agreed.
    """
    if plan.needs_consent and not ask(f"{plan.describe()}. Go on?"):
        raise InputError(
            f"{plan.describe()}, and nobody agreed to that",
            f"bound them: --max-measurements {plan.networks} for all; --dry-run shows what a bound costs",
        )
