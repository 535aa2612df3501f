"""What this process has once, changed for a while and put back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Set a logger's level until the end; an empty name is the root logger's."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def torch_as_before() -> Iterator[None]:
    """Put back at the end what training sets: torch's threads and random numbers, and what is warned of."""
    import torch

    threads = torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
