"""Small Programs written by hand, so that the runner is tested without the compiler.

python runner_samples.py DIRECTORY writes them, with a model directory for each target.
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import wasmtime

from nearfield.program.codec import encode
from nearfield.program.program import Buffer, Entry, Kernel, Program, Step

N = 4096
WGSL_AXPY = """
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    y[id.x] = x[id.x] * w[id.x] + 1.0;
}
"""
WGSL_ADD = WGSL_AXPY.replace("x[id.x] * w[id.x] + 1.0", "x[id.x] + w[id.x]")
WGSL_BROKEN = WGSL_AXPY.replace("+ 1.0", "+ nothing")
WGSL_INCREMENT = """
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    x[id.x] = x[id.x] + 1.0;
}
"""
# Every step: this thread's part, then a barrier as in docs/spec/program.md, section 4.
WAT = """
(module
  (import "env" "memory" (memory 1 65536 shared))
  (func $axpy (export "axpy") (param $x i32) (param $w i32) (param $y i32) (param $i i32) (param $end i32)
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $i) (local.get $end)))
      (f32.store (i32.add (local.get $y) (i32.shl (local.get $i) (i32.const 2)))
        (f32.add (f32.const 1) (f32.mul
          (f32.load (i32.add (local.get $x) (i32.shl (local.get $i) (i32.const 2))))
          (f32.load (i32.add (local.get $w) (i32.shl (local.get $i) (i32.const 2)))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $more))))
  (func $add (export "add") (param $x i32) (param $w i32) (param $y i32) (param $i i32) (param $end i32)
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $i) (local.get $end)))
      (f32.store (i32.add (local.get $y) (i32.shl (local.get $i) (i32.const 2)))
        (f32.add
          (f32.load (i32.add (local.get $x) (i32.shl (local.get $i) (i32.const 2))))
          (f32.load (i32.add (local.get $w) (i32.shl (local.get $i) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $more))))
  (func $increment (export "increment") (param $x i32) (param $i i32) (param $end i32)
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $i) (local.get $end)))
      (f32.store (i32.add (local.get $x) (i32.shl (local.get $i) (i32.const 2)))
        (f32.add (f32.const 1) (f32.load (i32.add (local.get $x) (i32.shl (local.get $i) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $more))))
  (func $barrier (param $args i32) (param $thread i32) (param $threads i32) (local $generation i32)
    (if (i32.lt_u (local.get $threads) (i32.const 2)) (then return))
    (local.set $generation (i32.atomic.load offset=4 (local.get $args)))
    (if (i32.eq (i32.add (i32.atomic.rmw.add (local.get $args) (i32.const 1)) (i32.const 1)) (local.get $threads))
      (then
        (i32.atomic.store (local.get $args) (i32.const 0))
        (drop (i32.atomic.rmw.add offset=4 (local.get $args) (i32.const 1)))
        (drop (memory.atomic.notify offset=4 (local.get $args) (i32.const -1))))
      (else (loop $wait
        (if (i32.eq (i32.atomic.load offset=4 (local.get $args)) (local.get $generation)) (then
          (if (i32.or (local.get $thread) (i32.load offset=8 (local.get $args))) (then
            (drop (memory.atomic.wait32 offset=4 (local.get $args) (local.get $generation) (i64.const -1)))))
          (br $wait)))))))
  (func $part (param $thread i32) (param $threads i32) (result i32)
    (i32.div_u (i32.mul (i32.const SIZE) (local.get $thread)) (local.get $threads)))
  ENTRIES)
"""


def entry(name: str, steps: list[tuple[str, tuple[int, ...]]]) -> str:
    """WAT of an exported `run_` function: kernels on numbered buffers."""
    calls = []
    for kernel, buffers in steps:
        addresses = "".join(f"(i32.load offset={20 + 4 * b} (local.get $args))" for b in buffers)
        calls.append(f"(call ${kernel} {addresses} (local.get $begin) (local.get $end))")
        calls.append("(call $barrier (local.get $args) (local.get $thread) (local.get $threads))")
    return f"""(func (export "run_{name}") (param $args i32) (param $thread i32) (param $threads i32)
        (local $begin i32) (local $end i32)
        (local.set $begin (call $part (local.get $thread) (local.get $threads)))
        (local.set $end (call $part (i32.add (local.get $thread) (i32.const 1)) (local.get $threads)))
        {" ".join(calls)})"""


def module(entries: str, n: int) -> tuple[bytes, int]:
    """WebAssembly and the position of the flags byte of its memory import."""
    code = bytes(wasmtime.wat2wasm(WAT.replace("ENTRIES", entries).replace("SIZE", str(n))))
    mark = b"\x03env\x06memory\x02"
    flag = code.index(mark) + len(mark)
    assert code[flag] == 3
    return code, flag


def affine(target: str, n: int = N, cost: int = 1_000_000) -> Program:
    """predict: y = (x * w + 1) + c;  step: x <- x + 1 in place, returned as z (three times)."""
    constant = np.arange(n, dtype=np.float32).tobytes()
    f32 = "float32"
    buffers = (
        Buffer("x", f32, (n,), "input"),
        Buffer("w", f32, (n,), "weight"),
        Buffer("c", f32, (n,), "constant"),
        Buffer("t", f32, (n,), "scratch", offset=256),
        Buffer("y", f32, (n,), "output"),
        Buffer("z", f32, (n,), "output", alias=0),
    )
    plan = [("axpy", (0, 1, 3)), ("add", (3, 2, 4)), *[("increment", (5,))] * 3]
    names = ["axpy", "add", "increment"]
    size = (n // 64, 1, 1) if target == "webgpu" else (n, 4)
    steps = tuple(Step(names.index(name), arguments, size, cost) for name, arguments in plan)
    entries = (Entry("predict", (0,), (4,), 0, 2), Entry("step", (0,), (5,), 2, 5))
    arena = 256 + 4 * n
    if target == "webgpu":
        kernels = (Kernel("axpy", WGSL_AXPY, 3), Kernel("add", WGSL_ADD, 3), Kernel("increment", WGSL_INCREMENT, 1))
        return Program(target, (), buffers, kernels, steps, entries, arena, data=constant)
    kernels = (Kernel("axpy", "axpy", 3), Kernel("add", "add", 3), Kernel("increment", "increment", 1))
    code, flag = module(entry("predict", plan[:2]) + entry("step", plan[2:]), n)
    return Program(target, (), buffers, kernels, steps, entries, arena, code, flag, constant)


def pair(target: str, n: int = 64) -> Program:
    """both: s = a + b, the memory of a becomes r = a + 1 (an input may be given twice)."""
    f32 = "float32"
    buffers = (
        Buffer("a", f32, (n,), "input"),
        Buffer("b", f32, (n,), "input"),
        Buffer("s", f32, (n,), "output"),
        Buffer("r", f32, (n,), "output", alias=0),
    )
    plan = [("increment", (3,)), ("add", (0, 1, 2))]
    size = (n // 64, 1, 1) if target == "webgpu" else (n, 4)
    steps = (Step(0, (3,), size), Step(1, (0, 1, 2), size))
    entries = (Entry("both", (0, 1), (2, 3), 0, 2),)
    if target == "webgpu":
        kernels = (Kernel("increment", WGSL_INCREMENT, 1), Kernel("add", WGSL_ADD, 3))
        return Program(target, (), buffers, kernels, steps, entries)
    code, flag = module(entry("both", plan), n)
    kernels = (Kernel("increment", "increment", 1), Kernel("add", "add", 3))
    return Program(target, (), buffers, kernels, steps, entries, 0, code, flag)


def prepared(target: str, n: int = 64) -> Program:
    """prepare: runs <- runs + 1, p = w + runs;  predict: y = x + p. So y tells how often p was prepared."""
    f32 = "float32"
    buffers = (
        Buffer("x", f32, (n,), "input"),
        Buffer("w", f32, (n,), "weight"),
        Buffer("runs", f32, (n,), "weight"),
        Buffer("p", f32, (n,), "prepared"),
        Buffer("y", f32, (n,), "output"),
    )
    plan = [("add", (0, 3, 4)), ("increment", (2,)), ("add", (1, 2, 3))]
    names = ["add", "increment"]
    size = (n // 64, 1, 1) if target == "webgpu" else (n, 4)
    steps = tuple(Step(names.index(name), arguments, size, 100) for name, arguments in plan)
    entries = (Entry("predict", (0,), (4,), 0, 1), Entry("prepare", (), (), 1, 3))
    if target == "webgpu":
        kernels = (Kernel("add", WGSL_ADD, 3), Kernel("increment", WGSL_INCREMENT, 1))
        return Program(target, (), buffers, kernels, steps, entries)
    code, flag = module(entry("predict", plan[:1]) + entry("prepare", plan[1:]), n)
    kernels = (Kernel("add", "add", 3), Kernel("increment", "increment", 1))
    return Program(target, (), buffers, kernels, steps, entries, 0, code, flag)


def chain(target: str, n: int = N, length: int = 400) -> Program:
    """step: x <- x + length in place, one step each: more dispatches than one submit holds."""
    buffers = (Buffer("x", "float32", (n,), "input"), Buffer("z", "float32", (n,), "output", alias=0))
    size = (n // 64, 1, 1) if target == "webgpu" else (n, 4)
    steps = (Step(0, (1,), size, 30_000),) * length
    entries = (Entry("step", (0,), (1,), 0, length),)
    if target == "webgpu":
        return Program(target, (), buffers, (Kernel("increment", WGSL_INCREMENT, 1),), steps, entries)
    code, flag = module(entry("step", [("increment", (1,))] * length), n)
    return Program(target, (), buffers, (Kernel("increment", "increment", 1),), steps, entries, 0, code, flag)


def broken() -> Program:
    """A legal Program whose WGSL does not compile."""
    program = affine("webgpu")
    kernels = (Kernel("axpy", WGSL_BROKEN, 3), *program.kernels[1:])
    return Program(
        "webgpu", (), program.buffers, kernels, program.steps, program.entries, program.arena, data=program.data
    )


def image(target: str) -> Program:
    """predict: picture [1, 8, 8, 1] as float32 -> the same plus 1."""
    buffers = (
        Buffer("picture", "float32", (1, 8, 8, 1), "input"),
        Buffer("brighter", "float32", (1, 64), "output", alias=0),
    )
    size = (1, 1, 1) if target == "webgpu" else (64, 4)
    steps, entries = (Step(0, (1,), size),), (Entry("predict", (0,), (1,), 0, 1),)
    if target == "webgpu":
        return Program(target, (), buffers, (Kernel("increment", WGSL_INCREMENT, 1),), steps, entries)
    code, flag = module(entry("predict", [("increment", (1,))]), 64)
    return Program(target, (), buffers, (Kernel("increment", "increment", 1),), steps, entries, 0, code, flag)


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file of float32 arrays."""
    header, at = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in tensors.values())


# A worker's job that takes long, and then counts itself at its first argument.
LATE = """
(module
  (import "env" "memory" (memory 1 65536 shared))
  (func (export "run_main") (param $at i32) (param $thread i32) (param $threads i32)
    (local $i i32)
    (loop $more
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $i) (i32.const 30000000))))
    (drop (i32.atomic.rmw.add (local.get $at) (i32.const 1)))))
"""


def write(directory: Path) -> None:
    """All samples, as files."""
    directory.mkdir(parents=True, exist_ok=True)
    for target in ("wasm", "webgpu"):
        for make in (affine, pair, prepared, chain, image):
            (directory / f"{make.__name__}.{target}.nfp").write_bytes(encode(make(target)))
    (directory / "large.wasm.nfp").write_bytes(encode(affine("wasm", n=1 << 18, cost=100_000_000)))
    (directory / "late.wasm").write_bytes(bytes(wasmtime.wat2wasm(LATE)))
    (directory / "broken.webgpu.nfp").write_bytes(encode(broken()))
    model = {
        "format": "nearfield-model",
        "version": 1,
        "programs": [{"file": f"affine.{t}.nfp", "target": t, "features": []} for t in ("webgpu", "wasm")],
        "weights": "weights.safetensors",
        "inputs": [{"name": "values", "dtype": "float32", "shape": [1, N]}],
        "outputs": [{"name": "result", "dtype": "float32", "shape": [N]}],
        "labels": ["a", "b"],
        "metadata": {"made": "by hand"},
    }
    (directory / "model.json").write_text(json.dumps(model))
    once = {
        "programs": [{"file": "prepared.wasm.nfp", "target": "wasm", "features": []}],
        "weights": "prepared.safetensors",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [64]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [64]}],
    }
    (directory / "prepared.json").write_text(json.dumps(model | once))
    counted = {"w": np.full(64, 100, np.float32), "runs": np.zeros(64, np.float32)}
    (directory / "prepared.safetensors").write_bytes(safetensors(counted))
    weights = {"unused": np.ones(3, np.float32), "w": np.full(N, 2, np.float32)}
    (directory / "weights.safetensors").write_bytes(safetensors(weights))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
