"""The ranges of the numbers in records that are read: a number beyond them is a mistake.

They are wide: what somebody could mean is within. `hwnas.files.decode` tells the key of one that is not.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval

LARGEST_COUNT = 10**15
LARGEST_SIZE = 10**6
LARGEST_THREADS = 4096
LARGEST_SECONDS = 1e9
LARGEST_MS = 1e12
LARGEST_FIGURE = 1e15

Count = Annotated[int, Interval(ge=0, le=LARGEST_COUNT)]
"""Of what a network has: MACs, parameters, bytes, nodes, images."""

Operations = Annotated[int, Interval(ge=0, le=10**24)]
"""Of a training."""

Position = Annotated[int, Interval(ge=-LARGEST_SIZE, le=LARGEST_SIZE)]
"""Of a part, or of a choice among its candidates; negative ones count from the end."""

Size = Annotated[int, Interval(ge=1, le=LARGEST_SIZE)]
"""Of what is computed with: pixels, channels, images a batch, epochs, repeats."""

SizeOrNone = Annotated[int, Interval(ge=0, le=LARGEST_SIZE)]
"""The same, where 0 leaves it open."""

Threads = Annotated[int, Interval(ge=0, le=LARGEST_THREADS)]

Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]

Setting = Annotated[int, Interval(ge=-LARGEST_COUNT, le=LARGEST_COUNT)]
"""A value of an option, of which the option knows more."""

Nanoseconds = Annotated[int, Interval(ge=0, le=2**63 - 1)]
"""Since 1970."""

Seconds = Annotated[float, Interval(ge=0, le=LARGEST_SECONDS)]

Milliseconds = Annotated[float, Interval(ge=0, le=LARGEST_MS)]

Latency = Annotated[float, Interval(ge=1e-9, le=LARGEST_MS)]
"""In milliseconds, above zero."""

Factor = Annotated[float, Interval(ge=1e-6, le=1e6)]
"""By which a size is multiplied."""

Ratio = Annotated[float, Interval(ge=0, le=LARGEST_FIGURE)]

Figure = Annotated[float, Interval(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE)]
"""Whatever was measured or computed."""
