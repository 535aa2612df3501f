"""Moving data between memories outside the loop nests: stack inputs, hand-overs, overlap caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from hwnas.devices.simulator.accelerator import BANK_BITS, Accelerator, Memory


@dataclass(frozen=True)
class Copy:
    """A number of bits that travels along a path of memories (indices, source first)."""

    bits: int
    path: tuple[int, ...]


@dataclass(frozen=True)
class CopyCost:
    """Copies that happen together before a layer starts."""

    energy_pj: float = 0.0
    cycles: int = 0
    dram_read_bits: int = 0
    dram_write_bits: int = 0


def copy_path(
    accelerator: Accelerator, source: int, target: int, source_operand: str, target_operand: str
) -> tuple[int, ...]:
    """Memories between two levels: along one operand's chain, or up to a common memory and down again."""
    if source == target:
        return ()
    out, back = accelerator.chain(source_operand), accelerator.chain(target_operand)
    if source in back and back.index(source) > back.index(target):
        return back[back.index(target) : back.index(source) + 1][::-1]
    if target in out and out.index(target) > out.index(source):
        return out[out.index(source) : out.index(target) + 1]
    common = next(m for m in out[out.index(source) :] if m in back and back.index(m) > back.index(target))
    return (
        *out[out.index(source) : out.index(common)],
        *back[back.index(target) : back.index(common) + 1][::-1],
    )


def copy_cost(accelerator: Accelerator, copies: Sequence[Copy]) -> CopyCost:
    """Energy and time of copies that start together and share ports.

    Each hop takes as long as the slower of its two ports; a port serves one copy at a time (DeFiNES,
    HPCA 2023, data copy action).
    """
    memories = accelerator.memories
    energy = 0.0
    read = write = 0
    busy: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for copy in copies:
        time = 0
        for sender, receiver in zip(copy.path, copy.path[1:], strict=False):
            a, b = memories[sender], memories[receiver]
            energy += _words(copy.bits, a.read_bits_per_cycle) * a.read_pj
            energy += _words(copy.bits, b.write_bits_per_cycle) * b.write_pj
            cycles = max(ceil(copy.bits / a.read_bits_per_cycle), ceil(copy.bits / b.write_bits_per_cycle))
            for port in (_port(a, sender, "r"), _port(b, receiver, "w")):
                busy.setdefault(port, []).append((time, time + cycles))
            time += cycles
            if sender == accelerator.dram:
                read += round(_words(copy.bits, a.read_bits_per_cycle) * a.read_bits_per_cycle)
            if receiver == accelerator.dram:
                write += round(_words(copy.bits, b.write_bits_per_cycle) * b.write_bits_per_cycle)
    cycles = max((_port_time(spans) for spans in busy.values()), default=0)
    return CopyCost(energy, cycles, read, write)


def _words(bits: int, width: int) -> float:
    """Full-width accesses; wide memories open only the banks they need."""
    bank = min(BANK_BITS, width)
    return ceil(bits / bank) * bank / width


def _port(memory: Memory, at: int, way: str) -> tuple[int, str]:
    return at, "rw" if memory.one_port else way


def _port_time(spans: Sequence[tuple[int, int]]) -> int:
    if len(spans) == 1:
        return spans[0][1]
    one_by_one = min(start for start, _ in spans) + sum(end - start for start, end in spans)
    return max(one_by_one, *(end for _, end in spans))
