"""Nearfield in 300 lines: a lazy tensor, its gradient, and a compiler that makes WebAssembly of both.

    Tensor ──trace──▶ Graph ──build──▶ Program ──load──▶ numbers
    (what you write)  (numbered list)  (kernels, places)  (WebAssembly, or Python)

Read it from top to bottom; run it with `python nearfield_in_300_lines.py`. It needs Python's standard library only. With the
package wasmtime it runs the WebAssembly that it makes; without, or with the argument `python`, it runs the same kernels as
Python. Each part names the files of the real thing, which add much (types, devices, speed) and keep the idea. Lines are
counted without comments and empty ones.
"""
# fmt: off

import math
import random
import struct
import sys
from functools import cache
from importlib.util import find_spec
from itertools import count, product
from typing import Any, NamedTuple

# --- 1. K: how one element is made -------------------------------------------------------------------- scalar.py
#
# A scalar expression. Its instructions are those that every processor has. There is no tanh among them, and so a
# target is a short table (part 7). Equal expressions are one object: what is shared is computed once.


class K:
    def __init__(self, op: str, args: tuple) -> None: self.op, self.args = op, args
    def __add__(self, other): return k("add", self, other)
    def __mul__(self, other): return k("mul", self, other)
    def __rsub__(self, other): return k("sub", other, self)
    def __rtruediv__(self, other): return k("div", other, self)


interned = cache(lambda op, *args: K(op, args))


def k(op: str, *args: K | float) -> K:
    """One instruction. Numbers are kept as text, since 0.0 and -0.0 are equal in Python and not the same."""
    return interned(op, *(a if isinstance(a, K) else interned("const", repr(float(a))) for a in args))


# --- 2. Operations: one record, three statements --------------------------------------------------- op.py, ops/
#
# What an operation means, how one element of its result is made, and how it changes: three statements, written
# independently, so that `check` (part 9) can compare them. Nothing else in this file knows an operation's arithmetic.


class Op(NamedTuple):
    shape: Any     # (shapes of the inputs, attributes) -> shape of the result
    meaning: Any   # (arrays, attributes) -> array; an array is a dict from index to number: slow, and plainly right
    element: Any   # (index, inputs, attributes) -> K; an index is a tuple of loop variables, an input a function of one
    gradient: Any  # (g, inputs, result, attributes) -> what each input gets of g, said with Tensors


REGISTRY: dict[str, Op] = {}


def elementwise(meaning: Any, gradient: Any) -> Any:
    """A family: what operations of one kind share, so that a row states nothing but its arithmetic."""
    def row(body):
        name = body.__name__

        def shape(*shapes):
            if len(set(shapes)) > 1:
                raise ValueError(f"{name}: shapes {' and '.join(map(str, shapes))} differ; they must be equal. Use spread.")
            return shapes[0]

        REGISTRY[name] = Op(shape, lambda *arrays: {i: meaning(*(a[i] for a in arrays)) for i in arrays[0]},
                            lambda index, *inputs: body(*(x(index) for x in inputs)), gradient)
        return lambda *tensors: apply(name, *tensors)
    return row


@elementwise(meaning=lambda x, y: x + y, gradient=lambda g, x, y, z: (g, g))
def add(x: K, y: K) -> K:
    return x + y


@elementwise(meaning=lambda x, y: x * y, gradient=lambda g, x, y, z: (g * y, g * x))
def mul(x: K, y: K) -> K:
    return x * y


@elementwise(meaning=math.tanh, gradient=lambda g, x, y: (g * (1 - y * y),))
def tanh(x: K) -> K:
    """1 - 2 / (e^2x + 1), where e^2x is e^(x/128), a polynomial, squared eight times."""
    r = k("min", k("max", x, -20.0), 20.0) * (1 / 128)
    power = r * (1 / math.factorial(7)) + 1 / math.factorial(6)
    for n in range(5, -1, -1):
        power = power * r + 1 / math.factorial(n)
    for _ in range(8):
        power = power * power
    return 1.0 - 2.0 / (power + 1.0)


# Two more say where elements go: `sum` folds an axis, `spread` adds one and repeats. Each is the other's gradient, and a
# product of matrices is made of them (part 9).

def drop(index: tuple, axis: int) -> tuple: return index[:axis] + index[axis + 1 :]
def insert(index: tuple, axis: int, what: Any) -> tuple: return (*index[:axis], what, *index[axis:])


VARIABLES: list[str] = []  # names of the loop variables of sums, in one kernel


def sum_element(index, x, axis, size):
    VARIABLES.append(variable := f"r{len(VARIABLES)}")
    return interned("sum", variable, size, x(insert(index, axis, variable)))


REGISTRY["sum"] = Op(
    lambda shape, axis, size: drop(shape, axis),
    lambda x, axis, size: {i: sum(x[insert(i, axis, n)] for n in range(size)) for i in {drop(i, axis) for i in x}},
    sum_element,
    lambda g, x, y, axis, size: (apply("spread", g, axis=axis, size=size),))
REGISTRY["spread"] = Op(
    lambda shape, axis, size: insert(shape, axis, size),
    lambda x, axis, size: {insert(i, axis, n): v for i, v in x.items() for n in range(size)},
    lambda index, x, axis, size: x(drop(index, axis)),
    lambda g, x, y, axis, size: (apply("sum", g, axis=axis, size=size),))
REGISTRY["full"] = Op(
    lambda shape, value: shape,
    lambda shape, value: dict.fromkeys(product(*map(range, shape)), value),
    lambda index, shape, value: interned("const", repr(value)),
    lambda g, y, shape, value: ())

# --- 3. Tensor: an expression until somebody asks for numbers ------------------------------------------ tensor.py


class Tensor:
    def __init__(self, shape, op=None, args=(), attrs=(), values=None):
        self.shape, self.op, self.args, self.attrs, self.values = shape, op, args, attrs, values

    def like(self, x): return x if isinstance(x, Tensor) else apply("full", shape=self.shape, value=float(x))
    def __add__(self, other): return add(self, self.like(other))
    def __mul__(self, other): return mul(self, self.like(other))
    def __sub__(self, other): return self + self.like(other) * -1
    def __rsub__(self, other): return self.like(other) - self


def apply(op: str, *args: Tensor, **attrs: Any) -> Tensor:
    """Shapes are checked now, at the line that is wrong; numbers come later."""
    return Tensor(REGISTRY[op].shape(*(a.shape for a in args), **attrs), op, args, tuple(attrs.items()))


# --- 4. Gradient: Tensors in, Tensors out ---------------------------------------------------------------- grad.py


def gradients(loss: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """From the loss back to what it was made of; a Tensor used twice gets the sum of both parts."""
    order, total = {}, {id(loss): loss.like(1.0)}

    def visit(t):
        for a in t.args:
            if id(a) not in order:
                visit(a)
        order[id(t)] = t

    visit(loss)
    for t in reversed(order.values()):
        if t.op:
            for a, part in zip(t.args, REGISTRY[t.op].gradient(total[id(t)], *t.args, t, **dict(t.attrs)), strict=True):
                total[id(a)] = total[id(a)] + part if id(a) in total else part
    return [total[id(t)] for t in wanted]


# --- 5. Graph: the expression as a numbered list, equal lines merged ------------------------------ trace.py, graph/


class Line(NamedTuple):
    op: str
    args: tuple[int, ...]
    attrs: tuple
    shape: tuple[int, ...]


class Graph(NamedTuple):  # plain and hashable: the key under which its Program is found again
    lines: tuple[Line, ...]
    outputs: tuple[int, ...]

    def __str__(self):
        about = [[f"%{a}" for a in x.args if x.op != "input"] + [f"{n}={v}" for n, v in x.attrs] for x in self.lines]
        rows = [f"%{n}: {list(x.shape)} = {x.op}({', '.join(about[n])})" for n, x in enumerate(self.lines)]
        return "\n".join([*rows, f"return {', '.join(f'%{n}' for n in self.outputs)}"])


def trace(roots: list[Tensor]) -> tuple[Graph, list[Tensor]]:
    """The Graph that computes the roots, and the Tensors whose values are its inputs."""
    lines, numbers, feeds = {}, {}, []

    def visit(t):
        if id(t) not in numbers:
            if t.values is None:
                line = Line(t.op, tuple(map(visit, t.args)), t.attrs, t.shape)
            else:
                line = Line("input", (len(feeds),), (), t.shape)
                feeds.append(t)
            numbers[id(t)] = lines.setdefault(line, len(lines))
        return numbers[id(t)]

    return Graph(outputs=tuple(map(visit, roots)), lines=tuple(lines)), feeds


# --- 6. Fuse and lower: which lines get memory, and the loops that fill it -------- compiler/fuse.py, lower.py, plan.py


def fuse(graph: Graph) -> set[int]:
    """Stored are results, and costly lines of which an element would be made twice. The rest is made where it is used."""
    stored, repeated = set(graph.outputs), set()
    for n in reversed(range(len(graph.lines))):
        users = [u for u, line in enumerate(graph.lines) if line.op != "input" for a in line.args if a == n]
        if len(users) > 1 or any(graph.lines[u].op == "spread" or u in repeated - stored for u in users):
            repeated.add(n)
            if graph.lines[n].op in ("sum", "tanh"):
                stored.add(n)
    return stored


def lower(graph: Graph, stored: set[int], root: int) -> list:
    """Ask the result for one element; it asks its inputs, and so on down to what is in memory. Around that go loops."""
    VARIABLES.clear()

    @cache
    def at(n: int, index: tuple) -> K:
        line = graph.lines[n]
        if line.op == "input" or (n in stored and n != root):
            return interned("load", n, index)
        inputs = [lambda index, a=a: at(a, index) for a in line.args]
        return REGISTRY[line.op].element(index, *inputs, **dict(line.attrs))

    shape = graph.lines[root].shape
    axes, block = tuple(f"i{n}" for n in range(len(shape))), []
    block.append(("store", root, axes, statements(at(root, axes), block, {}, count())))
    for axis, size in reversed(list(zip(axes, shape, strict=True))):
        block = [("for", axis, size, block)]
    return block


def statements(node: K, block: list, known: dict, names: Any) -> str:
    """Append to the block what computes the node; returns the name of its value, or a number."""
    if node.op == "const":
        return node.args[0]
    if node not in known:
        if node.op == "sum":
            variable, size, body = node.args
            name, inner = f"v{next(names)}", []
            inner.append(("add", name, name, statements(body, inner, dict(known), names)))
            block += [("set", name, "0.0"), ("for", variable, size, inner)]
        else:
            args = node.args if node.op == "load" else [statements(a, block, known, names) for a in node.args]
            name = f"v{next(names)}"
            block.append((node.op, name, *args))
        known[node] = name
    return known[node]


# --- 7. Spell: a target is a table and a frame ------------------------------------- compiler/wgsl.py, compiler/wasm.py

PYTHON = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}",
          "min": "min({}, {})", "max": "max({}, {})", "set": "{}"}
WASM = {"add": b"\xa0", "sub": b"\xa1", "mul": b"\xa2", "div": b"\xa3", "min": b"\xa4", "max": b"\xa5", "set": b""}


def strides(graph: Graph, line: int, index: tuple) -> list[tuple[str, int]]:
    """Each loop variable of an index, and how many elements it moves in row-major memory."""
    return [(v, math.prod(graph.lines[line].shape[n + 1 :])) for n, v in enumerate(index)]


def as_python(graph: Graph, where: dict[int, int], block: list, indent: str = "") -> str:
    def cell(line, index):
        return f"m[{' + '.join([str(where[line]), *(f'{v} * {n}' for v, n in strides(graph, line, index))])}]"

    text = ""
    for op, name, *rest in block:
        if op == "for":
            text += f"{indent}for {name} in range({rest[0]}):\n{as_python(graph, where, rest[1], indent + '    ')}"
        elif op == "store":
            text += f"{indent}{cell(name, rest[0])} = {rest[1]}\n"
        else:
            text += f"{indent}{name} = {cell(*rest) if op == 'load' else PYTHON[op].format(*rest)}\n"
    return text


def leb(n: int) -> bytes:
    """A whole number below 2^34 as WebAssembly writes them, in five bytes whatever it is."""
    return bytes([n & 127 | 128, n >> 7 & 127 | 128, n >> 14 & 127 | 128, n >> 21 & 127 | 128, n >> 28])


def as_wasm(graph: Graph, where: dict[int, int], block: list, local: dict[str, bytes]) -> bytes:
    def value(name):  # local.get, or f64.const
        return b"\x20" + local[name] if name in local else b"\x44" + struct.pack("<d", float(name))

    def whole(n):  # i32.const
        return b"\x41" + leb(n)

    def address(line, index):  # of 8 bytes each: where + Σ variable · stride
        terms = (value(v) + whole(8 * n) + b"\x6c\x6a" for v, n in strides(graph, line, index))
        return whole(8 * where[line]) + b"".join(terms)

    code = b""
    for op, name, *rest in block:
        if op == "for":  # i = 0; loop { …; i += 1; if i < n: again }
            code += whole(0) + b"\x21" + local[name] + b"\x03\x40" + as_wasm(graph, where, rest[1], local)
            code += value(name) + whole(1) + b"\x6a\x22" + local[name] + whole(rest[0]) + b"\x48\x0d\x00\x0b"
        elif op == "store":
            code += address(name, rest[0]) + value(rest[1]) + b"\x39\x03\x00"
        else:
            made = address(*rest) + b"\x2b\x03\x00" if op == "load" else b"".join(map(value, rest)) + WASM[op]
            code += made + b"\x21" + local[name]
    return code


def module(graph: Graph, where: dict[int, int], blocks: list, size: int) -> bytes:
    """A module of one memory and one function, `run`, whose local variables are the loop variables and the values."""
    def names(block):
        return {name for op, *rest in block if op != "store" for name in [rest[0], *(names(rest[2]) if op == "for" else ())]}

    found = sorted(names(blocks))
    loops, values = [n for n in found if n[0] != "v"], [n for n in found if n[0] == "v"]
    local = {name: leb(n) for n, name in enumerate(loops + values)}
    body = b"\x02" + leb(len(loops)) + b"\x7f" + leb(len(values)) + b"\x7c" + as_wasm(graph, where, blocks, local) + b"\x0b"
    sections = {1: b"\x01\x60\x00\x00", 3: b"\x01\x00", 5: b"\x01\x00" + leb(size // 8192 + 1),
                7: b"\x02\x06memory\x02\x00\x03run\x00\x00", 10: b"\x01" + leb(len(body)) + body}
    return b"\0asm\1\0\0\0" + b"".join(bytes([n]) + leb(len(s)) + s for n, s in sections.items())


# --- 8. Program and device: built once per Graph, then only numbers move -------- compiler/build.py, runtime.py, device/


class Program(NamedTuple):
    inputs: list[int]   # where in memory each input is written
    outputs: list[int]  # and each output is found
    size: int
    kernels: list[str]
    module: bytes


@cache
def build(graph: Graph) -> tuple[Program, Any]:
    stored, where, size = fuse(graph), {}, 0
    kept = [n for n, line in enumerate(graph.lines) if line.op == "input" or n in stored]
    for n in kept:  # the real plan gives memory that is free again to others
        where[n], size = size, size + math.prod(graph.lines[n].shape)
    blocks = [lower(graph, stored, n) for n in kept if n in stored]
    inputs = [where[n] for n in kept if graph.lines[n].op == "input"]
    kernels = [as_python(graph, where, block) for block in blocks]
    code = module(graph, where, [statement for block in blocks for statement in block], size)
    program = Program(inputs, [where[n] for n in graph.outputs], size, kernels, code)
    return program, load(program)


def load(program: Program) -> Any:
    """The function that runs the Program: values of the inputs -> `sizes` values of each output."""
    if "python" in sys.argv or not find_spec("wasmtime"):
        kernels, memory = compile("".join(program.kernels), "kernels", "exec"), [0.0] * program.size
        run = lambda: exec(kernels, {"m": memory})
        write = lambda place, values: memory.__setitem__(slice(place, place + len(values)), values)
        read = lambda place, n: memory[place : place + n]
    else:
        import wasmtime
        store = wasmtime.Store()
        exports = wasmtime.Instance(store, wasmtime.Module(store.engine, program.module), []).exports(store)
        run = lambda: exports["run"](store)
        write = lambda place, values: exports["memory"].write(store, struct.pack(f"<{len(values)}d", *values), 8 * place)
        read = lambda place, n: [*struct.unpack(f"<{n}d", exports["memory"].read(store, 8 * place, 8 * (place + n)))]

    def session(inputs, sizes):
        for place, values in zip(program.inputs, inputs, strict=True):
            write(place, values)
        run()
        return [read(place, n) for place, n in zip(program.outputs, sizes, strict=True)]

    return session


def evaluate(roots: list[Tensor]) -> None:
    """Give the Tensors values. They forget what they were made of, so that a training loop does not grow."""
    graph, feeds = trace(roots)
    found = build(graph)[1]([t.values for t in feeds], [math.prod(t.shape) for t in roots])
    for t, values in zip(roots, found, strict=True):
        t.values, t.op, t.args = values, None, ()


# --- 9. Use it: a network learns which points lie in a circle --------------------------------- functional/, nn/, optim/


def spread(x: Tensor, axis: int, size: int) -> Tensor: return apply("spread", x, axis=axis, size=size)
def fold(x: Tensor, axis: int) -> Tensor: return apply("sum", x, axis=axis, size=x.shape[axis])


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a[n, k] b[k, m]: every product, folded along k. Fused, so that the n k m products are never in memory."""
    return fold(spread(a, 2, b.shape[1]) * spread(b, 0, a.shape[0]), 1)


def network(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    hidden = tanh(matmul(x, w1) + spread(b1, 0, x.shape[0]))
    return tanh(matmul(hidden, w2) + spread(b2, 0, x.shape[0]))


def interpret(graph: Graph, feeds: list[Tensor]) -> list[list[float]]:
    """What a Graph means, line by line. It uses nothing of parts 6 to 8, and so can judge them."""
    arrays, values = [], iter(feeds)
    for op, args, attrs, shape in graph.lines:
        if op == "input":
            arrays.append(dict(zip(product(*map(range, shape)), next(values).values, strict=True)))
        else:
            arrays.append(REGISTRY[op].meaning(*(arrays[a] for a in args), **dict(attrs)))
    return [[arrays[n][i] for i in product(*map(range, graph.lines[n].shape))] for n in graph.outputs]


def check(loss: Any, parameters: list[Tensor]) -> None:
    """The three statements agree: compiled gradients with their meaning, and that with the slope of the loss."""
    grads = gradients(loss(*parameters), parameters)
    meant = interpret(*trace(grads))
    evaluate(grads)
    for p, g, m in zip(parameters, grads, meant, strict=True):
        for n, value in enumerate(p.values):
            left, right = [interpret(*trace([loss(*parameters)]))[0][0] for p.values[n] in (value - 1e-5, value + 1e-5)]
            p.values[n] = value
            assert math.isclose(g.values[n], m[n], rel_tol=1e-9, abs_tol=1e-9), "compiled and meant differ"
            assert math.isclose((right - left) / 2e-5, m[n], rel_tol=1e-4, abs_tol=1e-7), "gradient and slope differ"


def main() -> float:
    rng = random.Random(1)
    points = [(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(64)]
    x = Tensor((64, 2), values=[v for point in points for v in point])
    wanted = Tensor((64, 1), values=[1.0 if math.hypot(*point) < 0.7 else -1.0 for point in points])
    shapes = ((2, 8), (8,), (8, 1), (1,))
    parameters = [Tensor(shape, values=[rng.gauss(0, 1) for _ in range(math.prod(shape))]) for shape in shapes]

    def loss(*parameters):
        error = network(x, *parameters) - wanted
        return fold(fold(error * error, 1), 0) * (1 / 64)

    check(loss, parameters)
    graph, _ = trace([loss(*parameters)])
    print(graph, "", "Its first kernel is lines 1 to 9: product, bias and tanh.", "", build(graph)[0].kernels[0], sep="\n")
    before = build.cache_info().misses
    for step in range(601):
        value = loss(*parameters)
        grads = gradients(value, parameters)
        parameters = [p - g * 0.3 for p, g in zip(parameters, grads, strict=True)]
        evaluate([value, *parameters])
        if step % 100 == 0:
            print(f"step {step}  loss {value.values[0]:.4f}")
    print(f"601 steps, {build.cache_info().misses - before} Program built. What it has learned:")
    corners = [v / 12 - 1 for n in range(12 * 24) for v in (n % 24 + 0.5, n // 24 * 2 + 1)]
    seen = network(Tensor((12 * 24, 2), values=corners), *parameters)
    evaluate([seen])
    print(*("".join(".#"[v > 0] for v in seen.values[n : n + 24]) for n in range(0, 288, 24)), sep="\n")
    return value.values[0]


if __name__ == "__main__":
    main()
