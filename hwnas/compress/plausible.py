"""What a device can have answered: a latency far below what the arithmetic allows is its error."""

from __future__ import annotations
