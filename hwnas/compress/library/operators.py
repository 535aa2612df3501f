"""Which ONNX operators each choice of a part holds, and which choices a device refuses for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwnas.compress.library.store import Entry, Library
from hwnas.errors import InputError, NetworkFormError, is_out_of_memory, memory_error
from hwnas.measurement import DeviceProfile
from hwnas.networks.exported import own_parts
from hwnas.networks.partition import Partition
from hwnas.networks.sizes import require_size
from hwnas.onnx_file import operators_of
from hwnas.progress import Progress

NAMED = 4  # candidates of a part that a message names before it only counts them
FLUSH = 64  # exports whose operators are stored at once

Refused = Mapping[tuple[int, int], tuple[str, ...]]
"""The forbidden operators that each refused choice holds, by part and choice."""


def require_exports(parts: Partition) -> None:
    """Export each of the reference's own parts, before anything is trained that could not be delivered.

    Raises:
        InputError: names the part, and why it cannot be exported.
    """
    for part in own_parts(parts).values():
        try:
            part.onnx  # noqa: B018 - exported when it is asked for
        except NetworkFormError as error:
            raise InputError(error.cause, error.fix) from None


def check_exports(library: Library, trained: Partition, measured: Partition, progress: Progress) -> None:
    """Export every candidate that was not exported yet, and store its operators; nothing is trained for it.

    A candidate that cannot be exported, or has to be of one size, is marked as failed.

    Args:
        trained, measured: the reference's parts at the sizes at which candidates are trained and measured.
    """
    entries = (entry for entry in library.entries() if entry.state != "failed")
    unknown = [entry.candidate for entry in entries if entry.operators is None]
    for start in range(0, len(unknown), FLUSH):
        found = []
        for number, candidate in enumerate(unknown[start : start + FLUSH], start + 1):
            try:
                graph = require_size(candidate, trained, measured)
                found.append((candidate, operators_of(graph)))
            except NetworkFormError as error:
                if is_out_of_memory(error):
                    raise memory_error(error) from None
                library.fail(candidate, error.cause)
            progress.advance("check exports", number, len(unknown), candidate.name)
        library.store_operators(found)


def check_device(library: Library, parts: Partition, profile: DeviceProfile, progress: Progress) -> Refused:
    """Say which choices a device refuses; the library holds them all the same, for other devices.

    Raises:
        InputError: it refuses every choice of a part.
    """
    if not profile.forbidden_operators:
        return {}
    entries = library.entries()
    refused = find_refused(parts, entries, profile.forbidden_operators)
    progress.say(describe_refused(parts, entries, refused, profile))
    require_choices(parts, entries, refused, profile)
    return refused


def find_refused(parts: Partition, entries: Sequence[Entry], forbidden: Sequence[str]) -> Refused:
    """The choices that hold forbidden operators, the reference's own parts among them.

    The operators are those of the exported fp32 graphs.
    """
    own = own_parts(parts)
    held = {(n, 0): operators_of(own[name].onnx) for n, name in enumerate(parts.names)}
    held |= {(entry.candidate.part, entry.candidate.choice): entry.operators or () for entry in entries}
    found = {key: tuple(name for name in names if name in forbidden) for key, names in held.items()}
    return {key: names for key, names in found.items() if names}


def describe_refused(
    parts: Partition, entries: Sequence[Entry], refused: Refused, profile: DeviceProfile
) -> str:
    """What a device refuses, for people: one line for all, and one for each part that is concerned."""
    forbids = f"{profile.name} forbids {', '.join(profile.forbidden_operators)}"
    if not refused:
        return f"{forbids}; no part holds them"
    lines = [f"{forbids}; left out of its search:"]
    for n, part in enumerate(parts.names):
        of_part = [entry.candidate for entry in entries if entry.candidate.part == n]
        gone = [candidate.spec.name for candidate in of_part if (n, candidate.choice) in refused]
        texts = ["the reference's own"] if (n, 0) in refused else []
        if gone:
            names = f" ({', '.join(gone)})" if len(gone) <= NAMED else ""
            texts.append(f"{len(gone)} of {len(of_part)} candidates{names}")
        if texts:
            held = sorted({name for (of, _), names in refused.items() if of == n for name in names})
            lines.append(f"  {part}: {', '.join(texts)}, for {', '.join(held)}")
    return "\n".join(lines)


def require_choices(
    parts: Partition, entries: Sequence[Entry], refused: Refused, profile: DeviceProfile
) -> None:
    """Make sure that a device accepts at least one choice of each part.

    Args:
        entries: failed ones do not count.

    Raises:
        InputError: names the part and the operators.
    """
    usable = {(entry.candidate.part, entry.candidate.choice) for entry in entries if entry.state != "failed"}
    usable |= {(n, 0) for n in range(len(parts.modules))}
    for n, part in enumerate(parts.names):
        if all(key in refused for key in usable if key[0] == n):
            held = sorted({name for (of, _), names in refused.items() if of == n for name in names})
            raise InputError(
                f"{profile.name} refuses every choice of {part}: it forbids {', '.join(held)}",
                "take a space whose candidates do without (--space, with a new --out PATH), "
                f"or strike them from forbidden_operators of the profile {profile.name}",
            )
