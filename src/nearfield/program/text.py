"""A Program as text: the same text for equal Programs, so that it can be a golden file."""

from collections.abc import Iterable

from .program import Buffer, Entry, Program, Step

__all__ = ["text"]


def text(program: Program) -> str:
    """A table of the buffers, the kernels' names, the steps and the entries; kernels' code is left out."""
    return "\n".join(
        (
            f"program {' '.join((program.target, *program.features))}",
            f"  arena {program.arena}  module {len(program.module)}  data {len(program.data)}",
            "buffers",
            *_table(_buffer(index, buffer) for index, buffer in enumerate(program.buffers)),
            "kernels",
            *_table((f"k{i}", kernel.name, f"{kernel.bindings} bindings") for i, kernel in enumerate(program.kernels)),
            "steps",
            *_table(_step(program, index, step) for index, step in enumerate(program.steps)),
            "entries",
            *(_entry(program, entry) for entry in program.entries),
        )
    )


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  " + "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in lines]


def _buffer(index: int, buffer: Buffer) -> tuple[str, ...]:
    where = f"@{buffer.offset}" if buffer.kind in ("scratch", "constant") else ""
    where = f"takes over b{buffer.alias}" if buffer.alias >= 0 else where
    return f"b{index}", buffer.name, f"{buffer.dtype}{list(buffer.shape)}", buffer.kind, where


def _step(program: Program, index: int, step: Step) -> tuple[str, ...]:
    arguments = ", ".join(f"b{buffer}" for buffer in step.buffers)
    size = " x ".join(map(str, step.size)) if program.target == "webgpu" else " by ".join(map(str, step.size))
    return f"{index}", f"{program.kernels[step.kernel].name}({arguments})", size, f"cost {step.cost}"


def _entry(program: Program, entry: Entry) -> str:
    names = [", ".join(program.buffers[i].name for i in side) for side in (entry.inputs, entry.outputs)]
    return f"  {entry.name}({names[0]}) -> ({names[1]})  steps {entry.start} to {entry.stop}"
