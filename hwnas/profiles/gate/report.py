"""What a check found out: plain values, and the exit code that follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hwnas.files import encode
from hwnas.measurement import STRICT, Fingerprint
from hwnas.profiles.gate.decision import Decision
from hwnas.ranges import Milliseconds

SCHEMA = "hwnas.check/1"

PASSED, REGRESSED, NOT_RUN, INCONCLUSIVE = 0, 1, 2, 3
"""Exit codes."""

How = Literal["interleaved", "recorded", "modelled", "jobs", "not measured"]
Verdict = Literal["pass", "improvement", "regression", "inconclusive", "unchanged", "failed"]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came out for one network.

    Attributes:
        how: interleaved with its baseline in one session, or against recorded samples.
        reason: one line: why, and what to do.
        baseline_ms, now_ms: the lower decile of each repeat, by which the decision was made.
        baseline_median_ms, now_median_ms: the median of each repeat: what users of a device this busy meet.
    """

    __pydantic_config__ = STRICT
    model: str
    verdict: Verdict
    how: How
    reason: str
    decision: Decision | None = None
    baseline_ms: tuple[Milliseconds, ...] = ()
    now_ms: tuple[Milliseconds, ...] = ()
    baseline_median_ms: tuple[Milliseconds, ...] = ()
    now_median_ms: tuple[Milliseconds, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole check.

    Attributes:
        judgement: what stands against what was measured now, in sentences.
    """

    __pydantic_config__ = STRICT
    device: str
    fingerprint: Fingerprint
    baseline: str
    threshold: float
    networks: tuple[Checked, ...]
    judgement: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 pass, 1 regression, 2 could not run, 3 inconclusive; the first of 1, 2, 3 that is true."""
        verdicts = {checked.verdict for checked in self.networks}
        for verdict, code in (("regression", REGRESSED), ("failed", NOT_RUN), ("inconclusive", INCONCLUSIVE)):
            if verdict in verdicts:
                return code
        return PASSED

    def to_json(self) -> dict[str, Any]:
        """Plain data with the schema's name and version; see docs/json.md."""
        return {"schema": SCHEMA, "exit_code": self.exit_code, **encode(self)}
