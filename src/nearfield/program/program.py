"""Program: buffers, kernels, steps and entries, as plain data (docs/spec/program.md)."""

from dataclasses import dataclass
from math import prod

from ..dtype import DTYPES

__all__ = ["PREPARE", "Buffer", "Entry", "Kernel", "Program", "Step"]

PREPARE = "prepare"  # the entry that fills buffers of kind "prepared" from weights and constants


@dataclass(frozen=True)
class Buffer:
    """A named piece of memory.

    kind    whose memory it is: "input", "weight", "constant", "prepared", "scratch" or "output"
    offset  bytes into the arena (scratch) or into the Program's data (constant), else 0
    alias   for an output that takes over an input's memory, that input's number, else -1
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    offset: int = 0
    alias: int = -1

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def room(self) -> int:
        """Bytes reserved: `nbytes` rounded up to 16, at least 16."""
        return max(16, -(-self.nbytes // 16) * 16)


@dataclass(frozen=True)
class Kernel:
    """One compiled loop nest: WGSL text, or the name of a function in the module; `bindings` arguments."""

    name: str
    code: str
    bindings: int


@dataclass(frozen=True)
class Step:
    """One run of a kernel: its arguments, and workgroups [x, y, z] (webgpu) or [total, grain] (wasm)."""

    kernel: int
    buffers: tuple[int, ...]
    size: tuple[int, ...]
    cost: int = 0


@dataclass(frozen=True)
class Entry:
    """Something one can call: inputs, outputs, and steps `start` to `stop` (exclusive).

    One called `prepare` is called by the session itself, before another after its weights were written.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Program:
    """All that a device needs to run a Graph; see docs/spec/program.md for each field."""

    target: str
    features: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    entries: tuple[Entry, ...]
    arena: int = 0
    module: bytes = b""
    memory_flag: int = 0
    data: bytes = b""

    @property
    def prepares(self) -> bool:
        """Whether there is an entry `prepare`."""
        return any(entry.name == PREPARE for entry in self.entries)

    def __str__(self) -> str:
        from .text import text  # here, because text.py needs the classes above

        return text(self)
