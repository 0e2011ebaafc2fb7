"""Program -> Program in which kernels whose texts differ in numbers only are one, which reads them from a constant.

Layers of one kind and several sizes differ in extents and strides. A browser compiles each text in 10 to 60 ms, two or
three at a time, and reading a few numbers first takes a kernel less than half a microsecond. So large kernels, whose
own time counts, keep theirs.
"""

import re
import struct
from dataclasses import replace

from ..program.program import Buffer, Kernel, Program

__all__ = ["share_texts"]

NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
GAP = "\0"  # for a number, in the shape of a text
KNOWN = ("@", "fn ", "for ", "var<", "var ")  # lines whose numbers the compiler must know
LARGE = 1 << 25  # operations
Numbers = tuple[int, ...]


def share_texts(program: Program, bindings: int) -> Program:
    """The Program with fewer kernels, the same steps and results; one that needs features of WebGPU as it is.

    bindings  the most arguments of one kernel: the numbers are one more
    """
    if program.features:  # numbers are declared as written, other constants then perhaps as read: a device refuses both
        return program
    most = [0] * len(program.kernels)
    for step in program.steps:
        most[step.kernel] = max(most[step.kernel], step.cost)
    groups: dict[str, list[tuple[int, Numbers]]] = {}
    for n, kernel in enumerate(program.kernels):
        if most[n] < LARGE and kernel.bindings < bindings:
            shape, numbers = _parts(kernel.code)
            groups.setdefault(shape, []).append((n, numbers))
    made: dict[int, tuple[Kernel, Numbers]] = {}
    for shape, members in groups.items():
        if len({numbers for _, numbers in members}) > 1:
            kernel, read = _common(shape, [numbers for _, numbers in members], program.kernels[members[0][0]])
            made |= {n: (kernel, row) for (n, _), row in zip(members, read, strict=True)}
    return _assembled(program, made)


def _parts(text: str) -> tuple[str, Numbers]:
    """The text with gaps for the numbers that may be read, and these."""
    numbers: list[int] = []
    lines = []
    # who meets at a barrier must not depend on what is read: of kernels that have one, only a tile's strips are sure
    free = "workgroupBarrier" not in text or "fn finish(" in text
    for line in text.splitlines():
        if not free or line.lstrip().startswith(KNOWN):
            lines.append(line)
        else:
            numbers += map(int, NUMBER.findall(line))
            lines.append(NUMBER.sub(GAP, line))
    return "\n".join(lines) + "\n", tuple(numbers)


def _common(shape: str, members: list[Numbers], first: Kernel) -> tuple[Kernel, list[Numbers]]:
    """The kernel for all members, and what each reads."""
    columns = list(zip(*members, strict=True))  # for each gap, what the members have there
    differing = [c for c in dict.fromkeys(columns) if len(set(c)) > 1]
    words = {c: str(c[0]) for c in columns} | {c: f"n{at}" for at, c in enumerate(differing)}
    pieces = shape.split(GAP)
    text = "".join([a + b for a, b in zip(pieces, [*(words[c] for c in columns), ""], strict=True)])
    head, main = text.split("fn main(", 1)
    start = main.index("{\n") + 2
    place, count = first.bindings, len(differing)
    code = (
        f"@group(0) @binding({place}) var<storage, read_write> b{place}: array<i32>;\n"
        + "".join(f"var<private> n{at}: i32;\n" for at in range(count))
        + f"{head}fn main({main[:start]}"
        + "".join(f"  n{at} = b{place}[{at}];\n" for at in range(count))
        + main[start:]
    )
    return Kernel(first.name, code, place + 1), list(zip(*differing, strict=True))


def _assembled(program: Program, made: dict[int, tuple[Kernel, Numbers]]) -> Program:
    """The Program with other kernels, each told its numbers."""
    kernels = [made[n][0] if n in made else kernel for n, kernel in enumerate(program.kernels)]
    place = {kernel: at for at, kernel in enumerate(dict.fromkeys(kernels))}
    buffers, data = list(program.buffers), bytearray(program.data)
    where: dict[Numbers, int] = {}
    for _, numbers in made.values():
        if numbers not in where:
            data += bytes(-len(data) % 16)
            where[numbers] = len(buffers)
            buffers.append(Buffer(f"numbers{len(buffers)}", "int32", (len(numbers),), "constant", len(data)))
            data += struct.pack(f"<{len(numbers)}i", *numbers)
    steps = tuple(
        replace(
            step,
            kernel=place[kernels[step.kernel]],
            buffers=(*step.buffers, where[made[step.kernel][1]]) if step.kernel in made else step.buffers,
        )
        for step in program.steps
    )
    return replace(program, kernels=tuple(place), steps=steps, buffers=tuple(buffers), data=bytes(data))
