"""Which execution provider took which node of a graph."""

from __future__ import annotations

from collections import Counter

from hwnas.devices.android.settings import Settings
from hwnas.errors import PreparationError

CPU = "CPUExecutionProvider"


def placement_of(network: str, pairs: object, settings: Settings) -> dict[str, dict[str, int]]:
    """Nodes by provider and operator, as ONNX Runtime tells; nothing from one that is too old to tell.

    Args:
        pairs: (provider, operator) of each node.

    Raises:
        PreparationError: nodes run on the CPU, and nobody allowed that.
    """
    counts: dict[str, Counter[str]] = {}
    for provider, operator in pairs if isinstance(pairs, list) else []:
        counts.setdefault(provider, Counter())[operator] += 1
    if CPU in counts and not settings.has_cpu_fallback:
        operators = ", ".join(sorted(counts[CPU]))
        raise PreparationError(
            f"{network}: {operators} would run on the CPU, not on {settings.provider}",
            "replace them, or measure it so with --device-option allow_fallback=true",
        )
    return {provider: dict(sorted(counter.items())) for provider, counter in counts.items()}
