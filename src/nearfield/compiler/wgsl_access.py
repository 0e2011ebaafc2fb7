"""Which arguments of a kernel are declared as only read: steps that share nothing else may run at the same time.

A device waits between two steps if the second uses memory that the first may write, some 3 µs on a large card. WebGPU
tells memory apart by buffers, and refuses a step that has one of them twice, to read and to write.
"""

from collections.abc import Iterable, Sequence

from ..program.program import Buffer
from ..program.program import Kernel as Compiled
from .kernel import Kernel

__all__ = ["READ_ONLY", "declared", "features", "only_read"]

READ_ONLY = "read-only-storage"  # the feature of docs/spec/program.md
ONLY_READ = "var<storage, read>"


def only_read(
    buffers: Sequence[Buffer], calls: Iterable[tuple[int, tuple[int, ...]]], kernels: Sequence[Kernel]
) -> list[set[int]]:
    """For each kernel, the arguments that no step could find in the memory of one that may be written.

    calls  for each step, the kernel's number and its buffers'
    """
    memory, steps = _memory(buffers), list(dict.fromkeys(calls))
    found = [set(range(len(k.arguments))) - {s.argument for s in k.stores} for k in kernels]
    clash = True
    while clash:
        clash = False
        for at, numbers in steps:
            held = {memory[number] for place, number in enumerate(numbers) if place not in found[at]}
            wrong = {place for place in found[at] if memory[numbers[place]] in held}
            found[at] -= wrong
            clash = clash or bool(wrong)
    return found


def declared(text: str, places: Iterable[int]) -> str:
    """A module's text with these arguments declared as only read."""
    for n in places:
        text = text.replace(f"var<storage, read_write> b{n}:", f"{ONLY_READ} b{n}:")
    return text


def features(kernels: Iterable[Compiled]) -> tuple[str, ...]:
    """What a reader must know, to run these kernels."""
    return (READ_ONLY,) if any(ONLY_READ in kernel.code for kernel in kernels) else ()


def _memory(buffers: Sequence[Buffer]) -> list[object]:
    """Whose memory each buffer is: equal for two that may lie in one buffer of the device."""
    taken = {b.alias for b in buffers if b.alias >= 0}
    shared = {"scratch", "constant"}  # the arena; constants are packed together

    def whose(number: int, buffer: Buffer) -> object:
        if buffer.kind == "input" and number not in taken:
            return "input"  # a caller may give one thing twice
        return buffer.kind if buffer.kind in shared else buffer.alias if buffer.alias >= 0 else number

    return [whose(number, buffer) for number, buffer in enumerate(buffers)]
