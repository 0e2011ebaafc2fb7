"""Graph -> Program: the pipeline, one line per stage."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod

from ..graph.graph import Graph
from ..graph.verify import verify
from ..program.program import PREPARE, Buffer, Entry, Program, Step
from ..program.program import Kernel as Compiled
from .compared import compared
from .digits import in_digits
from .divide import Part, divide
from .fuse import Fusion, fuse
from .join import join
from .kernel import Kernel, cost
from .lower import Lowered, lower
from .pack import pack
from .plan import Plan, plan
from .planes import planes_of
from .prepare import Prepared, prepare
from .simplify import simplify
from .target import Built, Target
from .wgsl_access import READ_ONLY, features, only_read
from .wgsl_chain import spell_chain
from .wgsl_frame import spell_kernel

__all__ = ["Built", "Target", "build", "build_steady"]


@contextmanager
def _without_collections() -> Iterator[None]:
    """No looking for cycles meanwhile: what is made here has none, is much, and each look is at all the process has."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_without_collections()
def build(
    graph: Graph,
    target: Target,
    givable: frozenset[int] = frozenset(),
    weights: dict[int, str] | None = None,
    names: dict[str, list[str]] | None = None,
    entry: str = "main",
) -> Built:
    """The Program that computes the Graph's outputs.

    givable  positions of inputs whose memory an output may take over: their values are not needed afterwards
    weights  names of inputs, by position, that the Program holds itself: filled when it is loaded. What depends on
             them alone is computed by an entry of its own, `prepare`
    names    {"input": …, "output": …}: names for the buffers that the caller gives and gets, in order
    entry    what the entry that computes the outputs is called
    """
    weights = weights or {}
    graph, kept, passing = _rewritten(graph, target, frozenset(weights))
    inputs = graph.inputs
    prepared = prepare(graph, {inputs[n] for n in weights}, target.name, kept, passing)
    return _built(graph, prepared, passing, target, givable, weights, names or {}, entry)


@_without_collections()
def build_steady(graph: Graph, target: Target, givable: frozenset[int], steady: frozenset[int]) -> Built:
    """As `build`, for inputs that are the caller's and yet seldom change: with what is made of these, `once`, apart.

    steady  their positions
    """
    graph, kept, passing = _rewritten(graph, target, steady)
    inputs = graph.inputs
    prepared = prepare(graph, {inputs[n] for n in steady}, target.name, kept, passing)
    first, rest = divide(graph, prepared, passing)
    built = _built_part(rest, target, givable)
    if not first.graph.outputs:
        return built
    once = _built_part(first, target, frozenset()).program
    return replace(built, once=once, feeds=tuple([inputs.index(n) for n in first.feeds]))


def _built_part(part: Part, target: Target, givable: frozenset[int]) -> Built:
    return _built(part.graph, Prepared(set(), part.kept), part.passing, target, givable, {}, {}, "main")


def _rewritten(graph: Graph, target: Target, weights: frozenset[int]) -> tuple[Graph, set[int], set[int]]:
    """An equal Graph, the lines in it that must be stored, and those of them that every call makes anew."""
    _show("graph", graph)
    if target.name == "webgpu":
        graph = join(_verified(graph), weights)
        if READ_ONLY in target.features:  # natively: a page's WGSL may lack the instruction, and there is no other text
            graph = in_digits(_verified(graph))
        planes = planes_of(_verified(graph), target.largest)
        return _verified(simplify(graph, target.name, planes.inline | planes.results)), set(), set()
    graph = _verified(simplify(_verified(graph), target.name))
    packed = pack(graph, weights, dots="relaxed-simd" in target.features)
    return _verified(packed.graph), packed.kept, packed.passing


def _built(
    graph: Graph,
    prepared: Prepared,
    passing: set[int],
    target: Target,
    givable: frozenset[int],
    weights: dict[int, str],
    names: dict[str, list[str]],
    entry: str,
) -> Built:
    """The Program of a Graph in its last form."""
    fusion = _fused(graph, prepared, target)
    once = _lower_all(graph, fusion, [group for group in fusion.groups if group[0] in prepared.fixed])
    always = _lower_all(graph, fusion, [group for group in fusion.groups if group[0] not in prepared.fixed])
    for step in (*once, *always):
        _show("kernels", step.kernel)
    inputs = graph.inputs
    planned = plan(graph, once, always, {inputs[n] for n in givable}, passing)
    program = _assemble(graph, target, planned, weights, names, entry)
    _show("plan", program)
    return Built(program, _results(graph))


def _fused(graph: Graph, prepared: Prepared, target: Target) -> Fusion:
    """What is stored: as fuse.py decides, and what has to be since it is compared with itself."""
    fusion = _fused_as_is(graph, prepared, target)
    more = compared(graph, fusion.stored) - prepared.kept
    return _fused(graph, replace(prepared, kept=prepared.kept | more), target) if more else fusion


def _fused_as_is(graph: Graph, prepared: Prepared, target: Target) -> Fusion:
    """What fuse.py has stored. Planes are not, if there is a kernel for everything that is made of them."""
    if target.name != "webgpu":
        return fuse(graph, target.bindings, prepared)
    planes = planes_of(graph, target.largest)
    fusion = fuse(graph, target.bindings, prepared, few=True, planes=planes)
    roots = [r for r in fusion.stored if planes.results & {r, *fusion.path.get(r, ())}]
    if all(spell_chain(step.kernel) for step in _lower_all(graph, fusion, [[r] for r in roots])):
        return fusion
    return fuse(graph, target.bindings, prepared, few=True)


def _show(stage: str, noun: object) -> None:
    if stage in os.environ.get("NEARFIELD_SHOW", ""):
        sys.stderr.write(f"{noun}\n")


def _verified(graph: Graph) -> Graph:
    if os.environ.get("NEARFIELD_DEBUG") == "1":
        verify(graph)
    return graph


def _lower_all(graph: Graph, fusion: Fusion, groups: list[list[int]]) -> list[Lowered]:
    inputs = set(graph.inputs)
    steps = []
    for group in groups:
        if prod(graph.lines[group[0]].shape) == 0:
            continue
        path = fusion.path.get(group[0], []) if len(group) == 1 else []
        moved = len({graph.lines[p].shape for p in path}) > 1 or any(graph.lines[p].op == "permute" for p in path)
        if moved and graph.lines[group[0]].dtype.itemsize < 4:
            path = []  # small elements are written four at a time, in the order of the result
        steps.append(lower(graph, group, lambda n: n in fusion.stored or n in inputs, path))
    return steps


def _unique_outputs(graph: Graph) -> list[int]:
    inputs = set(graph.inputs)
    return [n for n in dict.fromkeys(graph.outputs) if n not in inputs]


def _results(graph: Graph) -> tuple[tuple[str, int], ...]:
    inputs = {n: at for at, n in enumerate(graph.inputs)}
    outputs = {n: at for at, n in enumerate(_unique_outputs(graph))}
    return tuple(("input", inputs[n]) if n in inputs else ("output", outputs[n]) for n in graph.outputs)


def _buffers(
    graph: Graph, planned: Plan, weights: dict[int, str], names: dict[str, list[str]]
) -> tuple[list[Buffer], dict[int, int]]:
    """Buffers in the order inputs, outputs, others; and the number of each line's."""
    buffers: list[Buffer] = []
    number: dict[int, int] = {}
    given = {kind: iter(words) for kind, words in names.items()}

    def add(line: int, kind: str, offset: int = 0, alias: int = -1, name: str = "") -> None:
        about = graph.lines[line]
        number[line] = len(buffers)
        name = name or next(given.get(kind, iter(())), f"{kind}{len(buffers)}")
        buffers.append(Buffer(name, about.dtype.name, about.shape, kind, offset, alias))

    for at, line in enumerate(graph.inputs):
        add(line, "weight" if at in weights else "input", name=weights.get(at, ""))
    for line in _unique_outputs(graph):
        add(line, "output", alias=number[planned.owner[line]] if line in planned.owner else -1)
    used = dict.fromkeys(x for step in planned.steps for x in step.lines)
    for line in used:
        if line in planned.lasting:
            add(line, "prepared")
        elif line not in number:
            root = line
            while root in planned.owner:
                root = planned.owner[root]
            add(line, "scratch", planned.offsets[root])
    return buffers, number


def _assemble(
    graph: Graph, target: Target, planned: Plan, weights: dict[int, str], names: dict[str, list[str]], entry: str
) -> Program:
    buffers, number = _buffers(graph, planned, weights, names)
    unique: dict[Kernel, int] = {}
    calls = []
    for step in planned.steps:
        at = unique.setdefault(step.kernel, len(unique))
        calls.append((at, tuple(number[x] for x in step.lines)))
    inputs = tuple(number[x] for at, x in enumerate(graph.inputs) if at not in weights)
    outputs = tuple(number[x] for x in _unique_outputs(graph))
    entries = [Entry(entry, inputs, outputs, planned.once, len(calls))]
    if planned.once:
        entries.append(Entry(PREPARE, (), (), 0, planned.once))
    kernels = list(unique)
    program = Program(target.name, (), tuple(buffers), (), (), tuple(entries), planned.arena)
    finish = _webgpu if target.name == "webgpu" else _wasm
    return finish(program, kernels, calls, target)


def _webgpu(
    program: Program, kernels: list[Kernel], calls: list[tuple[int, tuple[int, ...]]], target: Target
) -> Program:
    found: dict[int, tuple[Compiled, tuple[int, int, int]]] = {}
    reads = only_read(program.buffers, calls, kernels) if READ_ONLY in target.features else [set[int]()] * len(kernels)
    # those with the most to do come first: if they compile meanwhile, they take longest
    for n in sorted(range(len(kernels)), key=lambda n: -cost(kernels[n])):
        text, size = spell_kernel(kernels[n], target.choices, reads[n])
        found[n] = Compiled(f"{kernels[n].name}_{n}", text, len(kernels[n].arguments)), size
        if target.spelled is not None:
            target.spelled(found[n][0])
    steps = tuple(Step(at, args, found[at][1], cost(kernels[at])) for at, args in calls)
    compiled = tuple(found[n][0] for n in range(len(kernels)))
    return replace(program, features=features(compiled), kernels=compiled, steps=steps)


def _wasm(program: Program, kernels: list[Kernel], calls: list[tuple[int, tuple[int, ...]]], target: Target) -> Program:
    from .wasm_cases import by_cases
    from .wasm_generator import generator_of
    from .wasm_module import assemble, places_of

    kernels = [by_cases(kernel) for kernel in kernels]
    relaxed = "relaxed-simd" in target.features
    entries = [(e.name, e.start, e.stop) for e in program.entries]
    generator, places = generator_of(target.code_generator), places_of(program.buffers)
    module = assemble(kernels, calls, entries, relaxed=relaxed, generator=generator, places=places)
    compiled = tuple(Compiled(name, name, len(k.arguments)) for name, k in zip(module.names, kernels, strict=True))
    steps = tuple(
        Step(at, args, (total, grain), cost(kernels[at]) if total > grain else 0)  # nothing that others could help with
        for (at, args), (total, grain) in zip(calls, module.sizes, strict=True)
    )
    features = ("relaxed-simd",) if relaxed else ()
    return replace(
        program,
        features=features,
        kernels=compiled,
        steps=steps,
        module=module.bytes,
        memory_flag=module.memory_flag,
    )
