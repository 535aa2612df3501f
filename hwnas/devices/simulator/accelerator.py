"""What a processor is made of: a multiplier array and the memories around it.

The description follows the public DeFiNES and ZigZag models: an array unrolls loop dimensions in
space, every operand (activations in, weights, outputs) has a chain of memories from the multiplier
outwards, and a memory is known by its size, its port widths and the energy of one full-width access.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, prod
from typing import Literal

from hwnas.errors import InputError

Operand = Literal["I", "W", "O"]
OPERANDS: tuple[Operand, ...] = ("O", "W", "I")

# Loop dimensions: output channels, input channels, groups, output rows and columns, kernel rows and columns.
DIMENSIONS = ("K", "C", "G", "OY", "OX", "FY", "FX")

# Wide SRAMs are built from banks; one access need not open all of them. 64 bits is the usual bank width
# and the width of a DRAM beat, so traffic and energy are counted in 64-bit pieces (ports narrower than
# that move whole words).
BANK_BITS = 64

# What a description may say at most: beyond it products of counts leave 64 bits.
LEAST = 1e-6
MOST_PJ = 1e9
MOST = {
    "unroll": 10**6,
    "clock_mhz": 1e7,
    "batch": 10**6,
    "activation_bits": 1024,
    "weight_bits": 1024,
    "partial_sum_bits": 1024,
    "size_bits": 8 * 10**15,
    "read_bits_per_cycle": 10**9,
    "write_bits_per_cycle": 10**9,
    "instances": 10**9,
    "ports": 1000,
}

# Memories that one operand may pass through.
MOST_LEVELS = 7


@dataclass(frozen=True)
class Memory:
    """One memory, or one set of identical register files spread over the array.

    Attributes:
        operands: which of I (activations in), W (weights), O (outputs and partial sums) it holds.
        size_bits: capacity of one instance.
        read_bits_per_cycle, write_bits_per_cycle: width of one port.
        read_pj, write_pj: energy of one full-width access.
        ports: numbers of read, write and read-write ports.
        instances: 1 for a shared memory, otherwise how many copies stand in the array.
    """

    name: str
    operands: tuple[Operand, ...]
    size_bits: int
    read_bits_per_cycle: int
    write_bits_per_cycle: int
    read_pj: float
    write_pj: float
    ports: tuple[int, int, int] = (1, 1, 0)
    instances: int = 1

    @property
    def shared(self) -> bool:
        """Whether it is one memory, not a register file repeated over the array."""
        return self.instances == 1

    @property
    def one_port(self) -> bool:
        """Whether reads and writes take turns, as no port only reads."""
        reads, _, both = self.ports
        return both > 0 and reads == 0


@dataclass(frozen=True)
class Accelerator:
    """A multiplier array with its memories, innermost first; the last one is the off-chip memory.

    Attributes:
        unroll: (dimension, size) pairs of the array, e.g. (("K", 32), ("C", 2), ("OX", 4), ("OY", 4)).
        mac_pj: energy of one multiply-accumulate.
        clock_mhz: turns cycles into milliseconds.
        batch: images per inference; weights that fit on chip are loaded once for all of them.
        activation_bits, weight_bits, partial_sum_bits: operand widths.
    """

    name: str
    unroll: tuple[tuple[str, int], ...]
    mac_pj: float
    memories: tuple[Memory, ...]
    clock_mhz: float = 1000.0
    batch: int = 1
    activation_bits: int = 8
    weight_bits: int = 8
    partial_sum_bits: int = 16
    _chains: dict[str, tuple[int, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def multipliers(self) -> int:
        """Multiply-accumulate units of the array."""
        return prod(size for _, size in self.unroll)

    @property
    def dram(self) -> int:
        """Index of the off-chip memory."""
        return len(self.memories) - 1

    def on_chip_bytes(self, *operands: str) -> int:
        """Bytes of the shared memories on chip that hold any of some operands."""
        held = [m for m in self.memories[:-1] if m.shared and set(operands) & set(m.operands)]
        return sum(m.size_bits for m in held) // 8

    def chain(self, operand: str) -> tuple[int, ...]:
        """Indices of the memories that hold an operand, innermost first."""
        if operand not in self._chains:
            self._chains[operand] = tuple(i for i, m in enumerate(self.memories) if operand in m.operands)
        return self._chains[operand]

    def served(self, memory: int) -> tuple[str, ...]:
        """Array dimensions along which one instance of a memory serves (or sums) all multipliers.

        A shared memory serves them all. A register file is repeated along the dimensions that index
        its operand, and shared along the others (weights are broadcast over OX and OY, outputs are
        summed over C): DeFiNES' served dimensions, recovered from the number of instances.
        """
        m = self.memories[memory]
        if m.shared:
            return tuple(dim for dim, _ in self.unroll)
        return tuple(dim for dim, _ in self.unroll if dim not in _repeated(self, m))


def check_weights(accelerator: Accelerator, weight_bits: int) -> None:
    """Refuse a network whose weights the off-chip memory does not hold. Raises InputError."""
    last = accelerator.memories[-1]
    if weight_bits > last.size_bits:
        raise InputError(
            f"the network's weights take {weight_bits // 8:,} bytes, but {last.name} of accelerator "
            f"{accelerator.name} holds {last.size_bits // 8:,}",
            "give the last memory more bytes, or take a smaller network",
        )


_INDEXED_BY = {"O": ("K", "G", "OY", "OX"), "W": ("K", "C", "G", "FY", "FX"), "I": ("C", "G", "OY", "OX")}


def _repeated(accelerator: Accelerator, memory: Memory) -> tuple[str, ...]:
    """Array dimensions along which a register file is repeated: their sizes multiply to its instances."""
    sizes = dict(accelerator.unroll)
    own = {dim for operand in memory.operands for dim in _INDEXED_BY[operand] if dim in sizes}
    dims = tuple(sizes)
    subsets = [tuple(d for i, d in enumerate(dims) if bits >> i & 1) for bits in range(1 << len(dims))]
    fitting = [s for s in subsets if prod(sizes[d] for d in s) == memory.instances]
    if not fitting:
        raise InputError(
            f"accelerator {accelerator.name}: memory {memory.name} has instances = {memory.instances}, "
            f"which no choice of dimensions of unroll = {sizes} multiplies to",
            "give 1 for a shared memory, or the product of the dimensions along which it is repeated",
        )
    # Among equal products the dimensions that index the operand are the plausible ones.
    return min(fitting, key=lambda s: (len(own.symmetric_difference(s)), s))


def check(accelerator: Accelerator) -> None:
    """Refuse a description that cannot work, naming the key at fault.

    Raises:
        InputError: a size, width or energy that is not positive, an operand without memory, a last
            memory that does not hold all operands, or capacities that shrink outwards.
    """
    where = f"accelerator {accelerator.name}"
    if not accelerator.unroll:
        raise InputError(
            f"{where}: unroll is empty", "give at least one array dimension, e.g. unroll = {K = 32, C = 32}"
        )
    for dim, size in accelerator.unroll:
        if dim not in DIMENSIONS:
            raise InputError(
                f"{where}: unroll has the unknown dimension {dim}",
                f"use dimensions out of {', '.join(DIMENSIONS)}",
            )
        _positive(where, f"unroll.{dim}", size, MOST["unroll"])
    for key in ("clock_mhz", "batch", "activation_bits", "weight_bits", "partial_sum_bits"):
        _positive(where, key, getattr(accelerator, key), MOST[key])
    _no_negative(where, "mac_pj", accelerator.mac_pj, "pJ of one multiply-accumulate")
    if not accelerator.memories:
        raise InputError(
            f"{where}: memories is empty", "list the memories, innermost first, the off-chip memory last"
        )
    words = {
        "I": accelerator.activation_bits,
        "W": accelerator.weight_bits,
        "O": accelerator.partial_sum_bits,
    }
    for memory in accelerator.memories:
        _check_memory(f"{where}: memory {memory.name}", memory)
        widest = max(memory.operands, key=lambda operand: words[operand])
        if memory.size_bits < words[widest]:
            raise InputError(
                f"{where}: memory {memory.name} has {memory.size_bits} bits, but one word of {widest} "
                f"takes {words[widest]}",
                "give it more bytes, or smaller activation_bits, weight_bits or partial_sum_bits",
            )
        if not memory.shared:
            _repeated(accelerator, memory)
    last = accelerator.memories[-1]
    if set(last.operands) != set(OPERANDS) or not last.shared:
        raise InputError(
            f"{where}: the last memory, {last.name}, has operands = {list(last.operands)} and instances = "
            f"{last.instances} but must hold all of I, W and O once",
            "end the list with the off-chip memory: operands = ['I', 'W', 'O'], instances = 1",
        )
    for operand in OPERANDS:
        sizes = [m.size_bits for m in accelerator.memories if operand in m.operands and m.shared]
        if len(accelerator.chain(operand)) > MOST_LEVELS:
            raise InputError(
                f"{where}: operand {operand} passes {len(accelerator.chain(operand))} memories",
                f"describe {MOST_LEVELS} at most, the off-chip one among them",
            )
        if sizes != sorted(sizes):
            raise InputError(
                f"{where}: the memories of operand {operand} have {[s // 8 for s in sizes]} bytes, "
                "which shrink outwards",
                "list the memories innermost first; each must be at least as large as the one inside it",
            )


def _positive(where: str, key: str, value: float, most: float) -> None:
    if not 0 < value < inf:
        raise InputError(
            f"{where}: {key} = {value} must be positive and finite", f"give {key} a value above zero"
        )
    if not LEAST <= value <= most:
        raise InputError(
            f"{where}: {key} = {value:g} is beyond what this model counts with",
            f"give {key} a value from {LEAST:g} to {most:g}",
        )


def _no_negative(where: str, key: str, value: float, what: str) -> None:
    if not 0 <= value <= MOST_PJ:
        raise InputError(
            f"{where}: {key} = {value:g} is no energy", f"give {key} as {what}, from 0 to {MOST_PJ:g}"
        )


def _check_memory(where: str, memory: Memory) -> None:
    for key in ("size_bits", "read_bits_per_cycle", "write_bits_per_cycle", "instances"):
        name = "bytes" if key == "size_bits" else key
        _positive(where, name, getattr(memory, key), MOST[key])
    for key in ("read_pj", "write_pj"):
        _no_negative(where, key, getattr(memory, key), "pJ of one full-width access")
    if not memory.operands or not set(memory.operands) <= set(OPERANDS):
        raise InputError(
            f"{where}: operands = {list(memory.operands)}", "name the operands it holds out of I, W and O"
        )
    read, write, both = memory.ports
    if (
        min(memory.ports) < 0
        or max(memory.ports) > MOST["ports"]
        or (both == 0 and (read == 0 or write == 0))
    ):
        raise InputError(
            f"{where}: ports = {list(memory.ports)} cannot read and write",
            "give [read, write, read-write] ports, e.g. [1, 1, 0]",
        )
