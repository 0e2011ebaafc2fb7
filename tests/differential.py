"""Graphs run on a device in many ways, and compared with what they mean; what differs is made smaller, shown as code.

The ways (`Plan`) are those that compile to other kernels or run them otherwise: weights that the Program holds, weights
that stay from call to call, inputs whose memory may be taken, few arguments to a kernel, small arrays only, no relaxed
instructions, any number of threads with pieces as small as can be.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np

from graph_drawing import filled
from nearfield.compiler import wasm_depthwise, wasm_loops, wasm_module
from nearfield.compiler.build import Built, Target, build, build_steady
from nearfield.device import call, open_device, wasmtime
from nearfield.dtype import DTYPES, DType
from nearfield.graph.graph import Graph, Line
from nearfield.graph.interpret import interpret
from nearfield.op import REGISTRY
from nearfield.runtime import target_of
from nearfield.tensor import Tensor
from nearfield.trace import trace
from node_runner import runner

F32 = DTYPES["float32"]
MODES = ("plain", "weights", "given", "steady")


@dataclass(frozen=True)
class Case:
    """A Graph, an array for each of its inputs, and which inputs are weights, or given away (the Plan says which)."""

    graph: Graph
    arrays: tuple[Any, ...]
    picked: frozenset[int] = frozenset()
    exact: bool = False  # whole numbers that stay whole: rounding is no excuse

    @classmethod
    def of(
        cls,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        arrays: Sequence[Any],
        picked: Sequence[int] = (),
        *,
        exact: bool = False,
    ) -> "Case":
        """The outputs' Graph; constant arrays become further inputs."""
        graph, feeds = trace([t.node for t in outputs], [t.node for t in inputs])
        more = [np.frombuffer(n.value, n.dtype.name).reshape(n.shape) for n in feeds[len(inputs) :]]
        return cls(graph, (*arrays, *more), frozenset(picked), exact)

    @property
    def dtypes(self) -> set[str]:
        return {line.dtype.name for line in self.graph.lines}


@dataclass(frozen=True)
class Plan:
    """How a Case is compiled and run.

    mode      what picked inputs are: "weights" of the Program, "given" (their memory may be taken), or "steady"
    bindings  the most arguments of a kernel, and `largest` the bytes of each; 0 for the device's own
    plain     without the instructions that not every WebAssembly has
    threads   one run with each number, on wasm
    worth     operations that are worth a piece of their own, on wasm
    """

    device: str
    mode: str = "plain"
    bindings: int = 0
    largest: int = 0
    plain: bool = False
    threads: tuple[int, ...] = (1, 3)
    worth: int = 1

    @classmethod
    def drawn(cls, rng: random.Random, device: str) -> "Plan":
        if device == "node":
            mode = rng.choice(("plain", "weights", "given"))
            return cls(device, mode, threads=(1, rng.choice((2, 3))), worth=rng.choice((1, 20, 300)))
        if device == "webgpu":
            return cls(device, rng.choice(MODES), rng.choice((0, 0, 0, 8)), rng.choice((0, 0, 0, 1, 4096)), threads=())
        threads = (1, rng.choice((3, 7)), 2, rng.choice((3, 5, 7)))
        return cls(device, rng.choice(MODES), plain=rng.random() < 0.2, threads=threads, worth=rng.choice((1, 20, 300)))

    def target(self, of: Target) -> Target:
        features = frozenset[str]() if self.plain else of.features
        return Target(
            "webgpu" if self.device == "webgpu" else "wasm",
            features,
            self.bindings or of.bindings,
            self.largest or of.largest,
        )

    def weights(self, case: Case) -> dict[int, str]:
        """Names of the inputs that the Program holds; what is returned as it came cannot be one."""
        returned = {n for n, line in enumerate(case.graph.inputs) if line in case.graph.outputs}
        return {n: f"w{n}" for n in sorted(case.picked - returned)} if self.mode == "weights" else {}

    def build(self, case: Case, target: Target) -> Built:
        picked = case.picked
        if self.mode == "weights":
            return build(case.graph, target, weights=self.weights(case))
        if self.mode == "steady":
            return build_steady(case.graph, target, frozenset(), picked)
        return build(case.graph, target, picked if self.mode == "given" else frozenset())


@contextmanager
def small_pieces(plan: Plan) -> Iterator[None]:
    """Threads share however little there is to do."""
    with ExitStack() as stack:
        if plan.device != "webgpu":
            for part in (wasm_loops, wasm_module, wasm_depthwise):
                stack.enter_context(patch.object(part, "WORTH", plan.worth))
            stack.enter_context(patch.object(wasmtime, "WORTH_A_THREAD", 0.001))
            stack.enter_context(patch.object(call, "COST_OF_STEP", 0))
            stack.enter_context(patch.dict(open_device("wasm").limits))
        yield


# --- what should come out -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """The outputs' values; by how much more than usual an element may differ, and where it may be anything."""

    values: list[Any]
    slack: list[Any] = field(default_factory=list)
    doubtful: list[Any] = field(default_factory=list)


def interpret_widely(case: Case, error: float = 0, seed: int = 0) -> list[Any]:
    """The outputs if only casts rounded to float16: kernels keep in 32 bits what they fuse.

    error  relative, of all real inputs and results, drawn from the seed; that of a long sum is larger
    """
    rng = np.random.default_rng(seed)
    feeds, values = iter(case.arrays), list[Any]()
    for line in case.graph.lines:
        if line.op == "input":
            value = next(feeds)
        else:
            attrs: dict[str, Any] = dict(line.attrs)
            is_half = line.dtype.name == "float16"
            attrs["dtype"] = line.dtype if line.op in ("const", "cast") or not is_half else F32
            value = REGISTRY[line.op].ref(*[values[a] for a in line.args], **attrs)
        value = value.astype("float32") if value.dtype == np.float16 else value
        if error and value.dtype.kind == "f" and line.op != "const":
            terms = max((values[a].size for a in line.args), default=0) / max(1, value.size)
            size = error * (1 + terms**0.5 / 8)
            value = value * (1 + size * rng.uniform(-1, 1, value.shape)).astype(value.dtype)
        values.append(value)
    return [values[n] for n in case.graph.outputs]


def distance(a: Any, b: Any) -> Any:
    """By how much they differ, where both are finite."""
    found = np.abs(a.astype("float64") - b.astype("float64"))
    return np.where(np.isfinite(found), found, 0)


def wanted(case: Case) -> Wanted:
    """What the Case means, and how much of it a small change of any number on the way moves."""
    with np.errstate(all="ignore"):
        values = interpret(case.graph, list(case.arrays))
        is_half = "float16" in case.dtypes
        found = Wanted(values, [np.zeros(v.shape) for v in values], [np.zeros(v.shape, bool) for v in values])
        if is_half or not case.exact:
            for seed in range(3):
                near = interpret_widely(case, 5e-4 if is_half else 1e-6, seed)
                widen(found, near, 10 if is_half else 4)
        if is_half:
            widen(found, interpret_widely(case), 6)
    return found


def widen(found: Wanted, others: list[Any], factor: float) -> None:
    """These values would be right, too."""
    for n, (other, value) in enumerate(zip(others, found.values, strict=True)):
        if value.dtype.kind == "f":
            found.slack[n] = np.maximum(found.slack[n], factor * distance(other, value))
            found.doubtful[n] |= np.isfinite(other) != np.isfinite(value)
        else:
            found.doubtful[n] |= other != value


def is_wrong(case: Case, want: Wanted, n: int, got: Any, *, only_finite: bool) -> Any:
    """For each element of output n, whether it is not what is wanted."""
    value = want.values[n]
    if value.dtype.kind != "f":
        wrong = got != value
        if value.dtype.itemsize == 1 and any(line.op == "round" for line in case.graph.lines):
            wrong = np.abs(got.astype(int) - value.astype(int)) > 1  # halves may be rounded up or down
        return wrong & ~want.doubtful[n]
    g, w = got.astype("float64"), value.astype("float64")
    scale = np.abs(w[np.isfinite(w)]).max(initial=0)
    part = 4e-3 if "float16" in case.dtypes else 3e-4  # also of what was rounded to float16 on the way
    least = 1e-3 if case.exact else 0.3  # differences of numbers of about 1 may be left
    near = np.abs(g - w) <= want.slack[n] + part * (np.abs(w) + 0.3 * scale + least)
    right = (g == w) | (np.isnan(g) & np.isnan(w)) | near | want.doubtful[n]
    return ~right & np.isfinite(w) if only_finite else ~right


# --- what comes out -------------------------------------------------------------------------------------------------


def differences(case: Case, plan: Plan, want: Wanted | None = None) -> list[str]:
    """What is wrong when the Case is run so: each a sentence, "raised" first if it is an error."""
    want = want or wanted(case)
    try:
        with small_pieces(plan), np.errstate(all="ignore"):
            return [text for result in runs(case, plan) for text in result(want)]
    except Exception as error:  # noqa: BLE001 - any error is a finding
        return [f"raised {type(error).__name__}: {error}"]


def runs(case: Case, plan: Plan) -> Iterator[Callable[[Wanted], Iterator[str]]]:
    """For each run, a function that compares it."""
    if plan.device == "node":
        yield from runs_in_node(case, plan)
        return
    device = open_device(plan.device)
    built = plan.build(case, plan.target(target_of(device)))
    session = device.load(built.program)
    weights = plan.weights(case)
    if weights:
        session.load_weights({name: case.arrays[n].tobytes() for n, name in weights.items()})
    given = [n for n in range(len(case.arrays)) if n not in weights]
    first: list[bytes] = []
    for threads in plan.threads or (0, 0):
        if threads:
            device.limits["threads"] = threads
        memories = {n: device.alloc(case.arrays[n].nbytes) for n in given}
        for n, memory in memories.items():
            device.write(memory, case.arrays[n].tobytes())
        more = device.load(built.once).run("main", [memories[n] for n in built.feeds]) if built.once else []
        made = session.run("main", [*memories.values(), *more])
        read = [made[at] if kind == "output" else memories[at] for kind, at in built.results]
        yield lambda want, read=read: compared(
            case, plan, want, [bytes(device.read(m, v.nbytes)) for m, v in zip(read, want.values, strict=True)], first
        )
        yield lambda _, memories=memories: untouched(
            case, plan, {n: bytes(device.read(m, case.arrays[n].nbytes)) for n, m in memories.items()}
        )


def runs_in_node(case: Case, plan: Plan) -> Iterator[Callable[[Wanted], Iterator[str]]]:
    """As `runs`, by the JavaScript runner; each step is said to cost much, so that all threads take part."""
    built = plan.build(case, Target("wasm", runner().features))
    program = replace(built.program, steps=tuple(replace(step, cost=10**7) for step in built.program.steps))
    weights = plan.weights(case)
    given = [n for n in range(len(case.arrays)) if n not in weights]
    inputs = [case.arrays[n].tobytes() for n in given]
    held = {name: case.arrays[n].tobytes() for n, name in weights.items()}
    place = {("input", n): at for at, n in enumerate(given)}
    first: list[bytes] = []
    for threads in plan.threads:

        def result(want: Wanted, threads: int = threads) -> Iterator[str]:
            sizes = [v.nbytes for v in want.values]
            read = [(r[0], place.get(r, r[1]), n) for r, n in zip(built.results, sizes, strict=True)]
            found, left = runner().run(program, inputs, held, read, threads)
            yield from compared(case, plan, want, found, first)
            if left:
                yield f"{left} bytes stay in use"

        yield result


def compared(case: Case, plan: Plan, want: Wanted, results: list[bytes], first: list[bytes]) -> Iterator[str]:
    """What is wrong with the results; on wasm those of several threads are those of one, to the bit, but for NaN's."""
    only_finite = plan.device == "webgpu" and not all(np.isfinite(a).all() for a in case.arrays if a.dtype.kind == "f")
    for n, (data, value) in enumerate(zip(results, want.values, strict=True)):
        got = np.frombuffer(data, value.dtype).reshape(value.shape)
        wrong = is_wrong(case, want, n, got, only_finite=only_finite)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            yield f"output {n}, {value.dtype}{list(value.shape)}: {wrong.sum()} wrong; {at}: {got[at]}, not {value[at]}"
        before = np.frombuffer(first[n], value.dtype).reshape(value.shape) if first else got
        same = np.array_equal(got, before, equal_nan=value.dtype.kind == "f")
        if plan.device != "webgpu" and not same:
            yield f"output {n}: threads make another result than one does"
    first[:] = first or results


def untouched(case: Case, plan: Plan, inputs: dict[int, bytes]) -> Iterator[str]:
    """Inputs that were not given away have their values."""
    for n, data in inputs.items():
        if data != case.arrays[n].tobytes() and not (plan.mode == "given" and n in case.picked):
            yield f"input {n} was written over"


# --- smaller --------------------------------------------------------------------------------------------------------


def smallest(case: Case, fails: Callable[[Case], bool], seconds: float = 60) -> Case:
    """The smallest Case that is found, by leaving out parts, that still fails."""
    end = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for other in smaller(case):
            if time.monotonic() > end:
                return case
            if fails(other):
                case, found = other, True
                break
    return case


def smaller(case: Case) -> Iterator[Case]:
    """Cases with less in them, those with the least first."""
    lines = case.graph.lines
    inner = [n for n, line in enumerate(lines) if line.op not in ("input", "const")]
    for n in inner:
        if case.graph.outputs != (n,):
            yield without_dead(case, lines, (n,))
    for n in range(len(case.graph.outputs)):
        if len(case.graph.outputs) > 1:
            yield without_dead(case, lines, case.graph.outputs[:n] + case.graph.outputs[n + 1 :])
    for n in reversed(inner):
        if n not in case.graph.outputs:
            yield from cut(case, n)
    for n in inner:
        for a in lines[n].args:
            if (lines[a].shape, lines[a].dtype) == (lines[n].shape, lines[n].dtype):
                yield passed_by(case, n, a)
    for n, array in enumerate(case.arrays):
        simple = filled(array.shape, array.dtype.name, n)
        if not np.array_equal(array, simple):
            yield replace(case, arrays=(*case.arrays[:n], simple, *case.arrays[n + 1 :]))
    if case.picked:
        yield replace(case, picked=frozenset())


def cut(case: Case, n: int) -> Iterator[Case]:
    """Line n becomes an input: of simple numbers, or of those that it has."""
    lines = list(case.graph.lines)
    values = interpret(Graph(case.graph.lines, (n,)), list(case.arrays))
    line = lines[n] = Line("input", (), (), lines[n].shape, lines[n].dtype)
    at = sum(other.op == "input" for other in lines[:n])
    picked = frozenset(p + (p >= at) for p in case.picked)
    for array in (filled(line.shape, line.dtype.name, n), values[0]):
        arrays = (*case.arrays[:at], array, *case.arrays[at:])
        yield without_dead(replace(case, arrays=arrays, picked=picked), lines, case.graph.outputs)


def passed_by(case: Case, n: int, argument: int) -> Case:
    """What uses line n uses its argument instead."""
    lines = [line._replace(args=tuple(argument if a == n else a for a in line.args)) for line in case.graph.lines]
    return without_dead(case, lines, tuple(argument if o == n else o for o in case.graph.outputs))


def without_dead(case: Case, lines: Sequence[Line], outputs: tuple[int, ...]) -> Case:
    """Only what the outputs need."""
    needed = set(outputs)
    for n in reversed(range(len(lines))):
        if n in needed:
            needed.update(lines[n].args)
    number = {n: place for place, n in enumerate(sorted(needed))}
    kept = tuple(lines[n]._replace(args=tuple(number[a] for a in lines[n].args)) for n in sorted(needed))
    stay = [at for at, n in enumerate(n for n, line in enumerate(lines) if line.op == "input") if n in needed]
    picked = frozenset(place for place, at in enumerate(stay) if at in case.picked)
    return Case(
        Graph(kept, tuple(number[o] for o in outputs)), tuple(case.arrays[at] for at in stay), picked, case.exact
    )


# --- as code --------------------------------------------------------------------------------------------------------


def as_code(case: Case, plan: Plan) -> str:
    """Python that fails as long as the Case does (with `tests` among the paths)."""
    rows, inputs, arrays = [], [], []
    for n, line in enumerate(case.graph.lines):
        if line.op == "input":
            at = len(inputs)
            rows.append(f'y{n} = stand_in({line.shape}, "{line.dtype.name}")')
            inputs.append(f"y{n}")
            arrays.append(shown_array(case.arrays[at]))
        else:
            attrs = [f"{name}={shown(value)}" for name, value in line.attrs]
            rows.append(f"y{n} = apply({', '.join([repr(line.op), *(f'y{a}' for a in line.args), *attrs])})")
    return "\n".join([
        "import numpy as np",
        "from differential import Case, Plan, differences",
        "from graph_drawing import filled, stand_in",
        "from nearfield.dtype import DTYPES",
        "from nearfield.tensor import apply",
        "",
        *rows,
        f"arrays = [{', '.join(arrays)}]",
        f"outputs, inputs = [{', '.join(f'y{o}' for o in case.graph.outputs)}], [{', '.join(inputs)}]",
        f"case = Case.of(outputs, inputs, arrays, picked={sorted(case.picked)}, exact={case.exact})",
        f"assert differences(case, {plan}) == []",
    ])  # fmt: skip


def shown(value: Any) -> str:
    return f'DTYPES["{value.name}"]' if isinstance(value, DType) else repr(value)


def shown_array(array: Any) -> str:
    """The call that fills it; else its numbers."""
    for seed in range(100):
        if np.array_equal(array, filled(array.shape, array.dtype.name, seed)):
            return f'filled({array.shape}, "{array.dtype.name}", {seed})'
    data = array.tobytes().hex()
    return f'np.frombuffer(bytes.fromhex("{data}"), "{array.dtype.name}").reshape({array.shape})'
