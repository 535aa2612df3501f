"""What a run will ask of its device, known before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwnas.compress.library.target import Target
from hwnas.compress.settings import SearchSettings
from hwnas.devices.base import Device
from hwnas.devices.queue import QueueDevice
from hwnas.errors import InputError
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.protocols import REPORT, least_seconds, queued


@dataclass(frozen=True, kw_only=True)
class Plan:
    """At most what a run measures; what its run directory knows already is not asked again.

    Attributes:
        blocks: choices of parts that are measured on their own for the filter.
        networks: of the search, the reference among them.
        checkpoints: networks measured at the end, the reference among them.
        elsewhere: networks that were picked for other devices, measured on this one as well.
        jobs: that a device with a queue is given; None for any other device.
        measuring_s: seconds that the runs of so many networks take at least; None where nobody here measures.
        needs_consent: so many networks that somebody must have agreed to them.
    """

    device: str
    blocks: int
    networks: int
    checkpoints: int
    elsewhere: int
    jobs: int | None
    measuring_s: float | None
    needs_consent: bool

    def describe(self) -> str:
        """One line for people."""
        blocks = f"{self.blocks} blocks, " if self.blocks else ""
        networks = f"{self.networks} networks in the search, {self.checkpoints} afterwards"
        others = f", {self.elsewhere} of other devices" if self.elsewhere else ""
        text = f"{self.device}: at most {blocks}{networks}{others}"
        if self.measuring_s is not None:
            text += f"; at least {self.measuring_s / 60:.0f} min of measuring, beside the training"
        return text if self.jobs is None else f"{text}, {self.jobs} jobs in all"


def plan_of(settings: SearchSettings, target: Target, choice_count: int, other_devices: int = 0) -> Plan:
    """The plan of a run with these settings.

    Args:
        target: of the settings, checked.
        choice_count: the choices of all parts together.
        other_devices: of the same command, whose picks are measured on this one too.

    Raises:
        InputError: `max_measurements` leaves nothing for the search once the blocks are measured.
    """
    device = open_device(target.profile)
    blocks = choice_count if settings.filter == "device" else 0
    networks = settings.population * settings.generations if settings.measures else 0
    if settings.max_measurements is not None:
        if networks and settings.max_measurements <= blocks:
            raise InputError(
                f"{settings.max_measurements} measurements are not enough for the {blocks} blocks "
                "and a search",
                "raise --max-measurements, take fewer --candidates, or spare the blocks: --filter macs",
            )
        networks = min(networks, settings.max_measurements - blocks)
    checkpoints = len(settings.picks) + 1
    elsewhere = len(settings.picks) * other_devices if settings.measures else 0
    if settings.max_measurements is not None:
        elsewhere = min(elsewhere, max(0, settings.max_measurements - blocks - networks))
    jobs = None
    if isinstance(device, QueueDevice):
        jobs = (blocks + networks + elsewhere) * (
            device.preparation_jobs + queued(target.protocol).max_repeats
        )
        jobs += checkpoints * (device.preparation_jobs + queued(REPORT).max_repeats)
    measuring_s = None
    if isinstance(device, Device) and device.kind == "measured":
        measuring_s = (blocks + networks + elsewhere) * least_seconds(target.protocol)
        measuring_s += checkpoints * least_seconds(REPORT)
    return Plan(
        device=target.profile.name,
        blocks=blocks,
        networks=networks,
        checkpoints=checkpoints,
        elsewhere=elsewhere,
        jobs=jobs,
        measuring_s=measuring_s,
        needs_consent=device.unconfirmed is not None
        and settings.max_measurements is None
        and blocks + networks > device.unconfirmed,
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
            f"bound them: --max-measurements {plan.blocks + plan.networks} for all; "
            "--dry-run shows what a bound costs",
        )
