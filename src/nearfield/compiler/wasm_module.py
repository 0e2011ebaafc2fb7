"""The WebAssembly module of a Program: its kernels, and the functions that run the steps (docs/spec/program.md, 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..program.program import Buffer
from .kernel import Kernel, cost
from .wasm_bytes import module
from .wasm_contraction import tiling
from .wasm_depthwise import compile_depthwise
from .wasm_dot import Dots
from .wasm_generator import V8, CodeGenerator
from .wasm_loops import WORTH, Compiled, compile_kernel
from .wasm_quantised import QuantisedTiles, quantised_tiling
from .wasm_scatter import compile_scatter
from .wasm_streams import STREAMS, Streams, is_streamed
from .wasm_threads import functions, run
from .wasm_tile import Tiles

__all__ = ["Module", "Place", "assemble", "places_of"]


@dataclass(frozen=True, slots=True)
class Module:
    """What `assemble` makes.

    bytes        the module
    memory_flag  position in it of the flags byte of the memory's limits
    names        of each kernel's function
    sizes        of each step: [total, grain]
    """

    bytes: bytes
    memory_flag: int
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer lies: bytes begin … end of a memory; those of different memories are apart."""

    memory: int
    begin: int
    end: int

    def meets(self, other: "Place") -> bool:
        """Whether two buffers share bytes."""
        return self.memory == other.memory and self.begin < other.end and other.begin < self.end


def places_of(buffers: Sequence[Buffer]) -> list[Place]:
    """Scratch lies in the arena (memory -1), an output in the memory that it takes over, all others apart."""
    places = []
    for n, b in enumerate(buffers):
        scratch = b.kind == "scratch"
        memory, begin = (-1, b.offset) if scratch else (b.alias if b.alias >= 0 else n, 0)
        places.append(Place(memory, begin, begin + b.room))
    return places


def assemble(
    kernels: Sequence[Kernel],
    steps: Sequence[tuple[int, tuple[int, ...]]],
    entries: Sequence[tuple[str, int, int]],
    *,
    relaxed: bool,
    generator: CodeGenerator = V8,
    places: Sequence[Place] = (),
) -> Module:
    """The module of some kernels, steps (kernel, buffers) and entries (name, first step, end step).

    relaxed  use relaxed SIMD (the Program then needs the feature "relaxed-simd")
    generator  what makes machine code of it
    places   of the buffers; unless given, each has a memory of its own
    """
    numbers: dict[Kernel, int] = {}
    for kernel in kernels:
        numbers.setdefault(kernel, len(numbers))
    compiled = [_compile(kernel, relaxed, generator) for kernel in numbers]
    names = [f"k{n}_{_word(kernel.name)}" for kernel, n in numbers.items()]
    shared = functions()
    rows = [*shared, *((name, c.parameters, 0, c.body) for name, c in zip(names, compiled, strict=True))]
    calls = [(numbers[kernels[kernel]], buffers) for kernel, buffers in steps]
    works = [
        _work(kernels[kernel], compiled[n], buffers, places)
        for (kernel, buffers), (n, _) in zip(steps, calls, strict=True)
    ]
    every = [(len(shared) + n, buffers, compiled[n].total, compiled[n].grain) for n, buffers in calls]
    for name, start, stop in entries:
        part = works[start:stop]
        rows.append((f"run_{name}", 3, 0, run(every[start:stop], [w.alone for w in part], meetings(part))))
    data, flag = module(rows)
    sizes = tuple((compiled[n].total, compiled[n].grain) for n, _ in calls)
    return Module(data, flag, tuple(names[numbers[kernel]] for kernel in kernels), sizes)


def _compile_contraction(kernel: Kernel, relaxed: bool, generator: CodeGenerator) -> Compiled | None:
    """The function of a kernel that is a contraction which tiles suit, or None."""
    quantised = quantised_tiling(kernel, relaxed=relaxed, generator=generator)
    plan = quantised or tiling(kernel, relaxed=relaxed, generator=generator)
    if plan is None:
        return None
    streamed = not quantised and is_streamed(plan)
    form = Streams if streamed else Dots if plan.kind == "dot" else Tiles
    tiles = QuantisedTiles(kernel, quantised) if quantised else form(kernel, plan)
    body = tiles.written()
    unit = STREAMS if streamed else 1
    grain = -(-WORTH * plan.total_parts // max(1, cost(kernel)))
    return Compiled(len(kernel.arguments) + 2, body, plan.total_parts, max(1, -(-grain // unit)) * unit)


def _compile(kernel: Kernel, relaxed: bool, generator: CodeGenerator) -> Compiled:
    """By whoever claims the kernel first; loops as K has them serve all."""
    claimed = _compile_contraction(kernel, relaxed, generator) or compile_depthwise(kernel, relaxed=relaxed)
    claimed = claimed or compile_scatter(kernel, relaxed=relaxed)
    return claimed or compile_kernel(kernel, relaxed=relaxed)


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does to memory, and whether thread 0 does it alone."""

    alone: bool
    reads: tuple[Place, ...]
    writes: tuple[Place, ...]

    def waits_for(self, earlier: "Work") -> bool:
        """Whether threads must meet between an earlier step and this one."""
        if self.alone and earlier.alone:
            return False
        touched = (*self.reads, *self.writes)
        return any(w.meets(p) for w in earlier.writes for p in touched) or any(
            w.meets(p) for w in self.writes for p in earlier.reads
        )


def _work(kernel: Kernel, compiled: Compiled, buffers: Sequence[int], places: Sequence[Place]) -> Work:
    at = [places[b] if places else Place(b, 0, 1) for b in buffers]
    written = kernel.written
    return Work(
        compiled.total <= compiled.grain,
        tuple(at[n] for n in range(len(at)) if n not in written),
        tuple(at[n] for n in written),
    )


def meetings(works: Sequence[Work]) -> list[bool]:
    """Whether there is a barrier before each step, and whether there is one after the last."""
    found = []
    since: list[Work] = []  # steps since the last barrier
    for work in works:
        found.append(any(map(work.waits_for, since)))
        since = [work] if found[-1] else [*since, work]
    return [*found, not all(work.alone for work in since)]


def _word(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in name)[:60]
