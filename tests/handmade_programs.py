"""Programs written by hand for the tests of the format and of the devices: no compiler is needed to make them.

`chain(target)`   y = x + c; z = y * w; w = w + 1: constants, scratch, a weight that is state, several steps, one output
`prepared(target)`   y = x + p, where `prepare` makes p = w + runs after runs <- runs + 1
`take_over(target)`   y = x + 1 in x's own memory
`sums(target)`    many steps, each reading what other threads wrote in the step before: wrong without barriers
`upload`, `download`, `loaded`   what the tests of devices do again and again
`trap()`          divides by zero on one thread of several
"""

import struct
from collections.abc import Sequence
from dataclasses import replace

from nearfield.device import Device, Memory, Session
from nearfield.program.program import Buffer, Entry, Kernel, Program, Step

HEAD = '(module (import "env" "memory" (memory 1 65536 shared))\n'

BARRIER = """
(func $barrier (param $args i32) (param $threads i32) (local $old i32)
  (if (i32.lt_u (local.get $threads) (i32.const 2)) (then return))
  (local.set $old (i32.atomic.load offset=4 (local.get $args)))
  (if (i32.eq (i32.add (i32.atomic.rmw.add (local.get $args) (i32.const 1)) (i32.const 1)) (local.get $threads))
    (then
      (i32.atomic.store (local.get $args) (i32.const 0))
      (drop (i32.atomic.rmw.add offset=4 (local.get $args) (i32.const 1)))
      (drop (memory.atomic.notify offset=4 (local.get $args) (i32.const -1))))
    (else
      (loop $wait
        (drop (memory.atomic.wait32 offset=4 (local.get $args) (local.get $old) (i64.const -1)))
        (br_if $wait (i32.eq (i32.atomic.load offset=4 (local.get $args)) (local.get $old)))))))
(func $bound (param $thread i32) (param $threads i32) (param $total i32) (param $grain i32) (result i32)
  (local $pieces i32) (local $at i32)
  (local.set $pieces
    (i32.div_u (i32.add (local.get $total) (i32.sub (local.get $grain) (i32.const 1))) (local.get $grain)))
  (local.set $at (i32.mul (local.get $grain)
    (i32.div_u (i32.mul (local.get $pieces) (local.get $thread)) (local.get $threads))))
  (select (local.get $at) (local.get $total) (i32.lt_u (local.get $at) (local.get $total))))
"""


def kernel(name: str, arguments: Sequence[str], body: str) -> str:
    """One exported kernel: `body` for each $i from begin to end; arguments are addresses."""
    given = " ".join(f"(param ${argument} i32)" for argument in arguments)
    return f"""
(func ${name} (export "{name}") {given} (param $i i32) (param $end i32)
  (block $done (loop $next
    (br_if $done (i32.ge_u (local.get $i) (local.get $end)))
    {body}
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br $next))))"""


def at(argument: str, index: str = "(local.get $i)") -> str:
    """The address of a four-byte element."""
    return f"(i32.add (local.get ${argument}) (i32.shl {index} (i32.const 2)))"


def runner(program: Program, entry: Entry) -> str:
    """The exported run function of one entry: its steps, each ending in a barrier."""
    lines = []
    for step in program.steps[entry.start : entry.stop]:
        total, grain = step.size
        given = " ".join(f"(i32.load offset={20 + 4 * number} (local.get $args))" for number in step.buffers)
        bounds = [
            f"(call $bound {thread} (local.get $threads) (i32.const {total}) (i32.const {grain}))"
            for thread in ("(local.get $thread)", "(i32.add (local.get $thread) (i32.const 1))")
        ]
        lines.append(f"(call ${program.kernels[step.kernel].code} {given} {' '.join(bounds)})")
        lines.append("(call $barrier (local.get $args) (local.get $threads))")
    body = "\n  ".join(lines)
    return f"""
(func (export "run_{entry.name}") (param $args i32) (param $thread i32) (param $threads i32)
  {body})"""


def assemble(program: Program, kernels: str) -> Program:
    """The Program with its module, of which `kernels` is the text."""
    from wasmtime import wat2wasm

    text = HEAD + BARRIER + kernels + "".join(runner(program, entry) for entry in program.entries) + ")"
    module = bytes(wat2wasm(text))
    name = b"\x03env\x06memory\x02"
    return replace(program, module=module, memory_flag=module.index(name) + len(name))


ADD = f"(f32.store {at('y')} (f32.add (f32.load {at('a')}) (f32.load {at('b')})))"
MUL = f"(f32.store {at('y')} (f32.mul (f32.load {at('a')}) (f32.load {at('b')})))"
INCREASE = f"(f32.store {at('y')} (f32.add (f32.load {at('y')}) (f32.const 1)))"
MIX = f"""(f32.store {at("y")} (f32.add (f32.load {at("x")})
      (f32.load {at("x", "(i32.rem_u (i32.add (local.get $i) (i32.const 501)) (i32.const 1000))")})))"""


def wgsl(arguments: Sequence[str], count: int, body: str, head: str = "") -> str:
    """A WGSL kernel in groups of 64: `body` for each i below count."""
    rows = [
        f"@group(0) @binding({i}) var<storage, read_write> {argument}: array<f32>;"
        for i, argument in enumerate(arguments)
    ]
    return f"""{head}{chr(10).join(rows)}
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
  let i = id.x;
  if (i < {count}u) {{ {body} }}
}}"""


def size_of(target: str, total: int) -> tuple[int, ...]:
    return (total, 4) if target == "wasm" else (-(-total // 64), 1, 1)


def chain(target: str, count: int = 6) -> Program:
    """z = (x + c) * w, then w = w + 1, with c = 0, 1, 2, …"""
    shape = (count,)
    data = struct.pack(f"<{count}f", *range(count))
    buffers = (
        Buffer("x", "float32", shape, "input"),
        Buffer("c", "float32", shape, "constant", 0),
        Buffer("y", "float32", shape, "scratch", 256),
        Buffer("w", "float32", shape, "weight"),
        Buffer("z", "float32", shape, "output"),
    )
    codes = {
        "add": wgsl("aby", count, "y[i] = a[i] + b[i];"),
        "mul": wgsl("aby", count, "y[i] = a[i] * b[i];"),
        "increase": wgsl("y", count, "y[i] = y[i] + 1.0;", "enable subgroups;\n"),
    }
    bindings = {"add": 3, "mul": 3, "increase": 1}
    size = size_of(target, count)
    program = Program(
        target=target,
        features=("relaxed-simd",) if target == "wasm" else (),
        buffers=buffers,
        kernels=tuple(Kernel(n, n if target == "wasm" else codes[n], bindings[n]) for n in codes),
        steps=(Step(0, (0, 1, 2), size, count), Step(1, (2, 3, 4), size, count), Step(2, (3,), size, count)),
        entries=(Entry("predict", (0,), (4,), 0, 2), Entry("train", (0,), (4,), 0, 3)),
        arena=256 + max(16, -(-4 * count // 16) * 16),
        data=data,
    )
    if target == "webgpu":
        return program
    kernels = kernel("add", "aby", ADD) + kernel("mul", "aby", MUL) + kernel("increase", "y", INCREASE)
    return assemble(program, kernels)


def prepared(target: str, count: int = 6) -> Program:
    """y = x + p; prepare: runs <- runs + 1, p = w + runs. So y tells how often p was prepared."""
    kinds = {"x": "input", "w": "weight", "runs": "weight", "p": "prepared", "y": "output"}
    codes = {"add": wgsl("aby", count, "y[i] = a[i] + b[i];"), "increase": wgsl("y", count, "y[i] = y[i] + 1.0;")}
    size = size_of(target, count)
    program = Program(
        target=target,
        features=(),
        buffers=tuple(Buffer(name, "float32", (count,), kind) for name, kind in kinds.items()),
        kernels=tuple(Kernel(n, n if target == "wasm" else codes[n], {"add": 3, "increase": 1}[n]) for n in codes),
        steps=(Step(1, (2,), size), Step(0, (1, 2, 3), size), Step(0, (0, 3, 4), size)),
        entries=(Entry("predict", (0,), (4,), 2, 3), Entry("prepare", (), (), 0, 2)),
    )
    return (
        program
        if target == "webgpu"
        else assemble(program, kernel("add", "aby", ADD) + kernel("increase", "y", INCREASE))
    )


def take_over(target: str, count: int = 6) -> Program:
    """y = x + 1 in the memory of x."""
    buffers = (Buffer("x", "float32", (count,), "input"), Buffer("y", "float32", (count,), "output", 0, 0))
    code = "increase" if target == "wasm" else wgsl("y", count, "y[i] = y[i] + 1.0;")
    step = Step(0, (1,), size_of(target, count), count)
    program = Program(target, (), buffers, (Kernel("increase", code, 1),), (step,), (Entry("next", (0,), (1,), 0, 1),))
    return program if target == "webgpu" else assemble(program, kernel("increase", "y", INCREASE))


def sums(target: str, steps: int = 40, cost: int = 100_000) -> Program:
    """x[i] + x[(i + 501) mod 1000], `steps` times; elements stay whole numbers if x is small."""
    shape = (1000,)
    buffers = (
        Buffer("x", "float32", shape, "input"),
        Buffer("even", "float32", shape, "scratch", 0),
        Buffer("odd", "float32", shape, "scratch", 4096),
        Buffer("y", "float32", shape, "output"),
    )
    code = "mix" if target == "wasm" else wgsl("xy", 1000, "y[i] = x[i] + x[(i + 501u) % 1000u];")
    ways = [(0 if k == 0 else 1 + k % 2, 3 if k == steps - 1 else 2 - k % 2) for k in range(steps)]
    program = Program(
        target,
        (),
        buffers,
        (Kernel("mix", code, 2),),
        tuple(Step(0, way, size_of(target, 1000), cost) for way in ways),
        (Entry("run", (0,), (3,), 0, steps),),
        arena=8192,
    )
    return program if target == "webgpu" else assemble(program, kernel("mix", "xy", MIX))


def trap() -> Program:
    """`fail` divides by zero on its last element, between two ordinary steps; `work` does not."""
    divide = f"(i32.store {at('y')} (i32.div_u (i32.const 1) (i32.sub (i32.const 99) (local.get $i))))"
    buffers = (Buffer("x", "float32", (100,), "input"), Buffer("y", "float32", (100,), "output", 0, 0))
    steps = (Step(1, (1,), (100, 4), 500_000), Step(0, (1,), (100, 4), 500_000), Step(1, (1,), (100, 4), 500_000))
    program = Program(
        "wasm",
        (),
        buffers,
        (Kernel("divide", "divide", 1), Kernel("increase", "increase", 1)),
        steps,
        (Entry("fail", (0,), (1,), 0, 3), Entry("work", (0,), (1,), 0, 1)),
    )
    return assemble(program, kernel("divide", "y", divide) + kernel("increase", "y", INCREASE))


def upload(device: Device, *values: float) -> Memory:
    """Values as float32 on the device."""
    memory = device.alloc(4 * len(values))
    device.write(memory, struct.pack(f"<{len(values)}f", *values))
    return memory


def download(memory: Memory) -> list[float]:
    """A block's float32 values."""
    return list(struct.unpack(f"<{memory.nbytes // 4}f", memory.device.read(memory, memory.nbytes)))


def loaded(device: Device) -> Session:
    """(x + [0, 1, …]) * w with w = 2."""
    session = device.load(chain(device.name))
    session.load_weights({"w": struct.pack("<6f", *[2.0] * 6)})
    return session
