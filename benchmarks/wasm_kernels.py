"""Time each kernel of some WebAssembly Programs in Chromium: one thread, no runner, memory laid out here.

    PYTHONPATH=src:tests python benchmarks/wasm_kernels.py [case …] [--simd] [--top n]

A row is one step: milliseconds (the median of rounds, after a warm-up for V8's optimising compiler), and operations
per second as docs/spec/program.md counts a step's cost. "of" is what the core's multiplier and adder gave at the same
time: less on a busy machine. Needs playwright and Chromium, as tests/browser does.
"""

import argparse
import base64
import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import nearfield as nf
from browser.harness import Site, launch
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.compiler.plan import room
from nearfield.compiler.wasm_bytes import OP, Function, f32, get, i32, memarg, module, put, tee, v128
from nearfield.dtype import DTYPES
from nearfield.program.program import Program, Step
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace

FOLDERS = {"/": Path(__file__).parents[1] / "tests" / "browser" / "pages"}
PAGE = """async ({module, limit, flag, calls, pages, fill, ms, warm}) => {
  const bytes = Uint8Array.from(atob(module), c => c.charCodeAt(0));
  bytes[flag] = 1;
  const memory = new WebAssembly.Memory({initial: pages, maximum: 65536});
  const begun = performance.now();
  const {instance} = await WebAssembly.instantiate(bytes, {env: {memory}});
  const compiling = performance.now() - begun;
  const peak = (await WebAssembly.instantiate(Uint8Array.from(atob(limit), c => c.charCodeAt(0)), {env: {memory}}))
    .instance.exports.peak;
  for (let i = 0; i < 200; i++) peak(2000);
  const floats = new Float32Array(memory.buffer);
  for (const [at, n] of fill) for (let i = 0; i < n; i++) floats[at / 4 + i] = ((i * 7919) % 1000) / 1000 - 0.5;
  const out = [];
  for (const [name, args, total, grain] of calls) {
    const f = instance.exports[name];
    let t = performance.now(), turns = 0;
    while (turns < 60 && (turns < 3 || performance.now() - t < warm)) { f(...args, 0, total); turns++; }
    const each = (performance.now() - t) / turns;
    const step = Math.max(grain, Math.ceil(total / Math.max(1, Math.round(each)) / grain) * grain);
    const inner = Math.max(1, Math.round(0.5 / each));
    const rounds = [], least = [], peaks = [];
    t = performance.now();
    while (rounds.length < 5 || performance.now() - t < ms) {
      let all = 0;
      const start = performance.now();
      peak(100000);
      peaks.push(performance.now() - start);
      for (let begin = 0, n = 0; begin < total; begin += step, n++) {
        const start = performance.now(), end = Math.min(total, begin + step);
        for (let i = 0; i < inner; i++) f(...args, begin, end);
        const one = (performance.now() - start) / inner;
        least[n] = Math.min(one, least[n] ?? one);
        all += one;
      }
      rounds.push(all);
    }
    rounds.sort((a, b) => a - b);
    peaks.sort((a, b) => a - b);
    out.push([rounds[rounds.length >> 1], least.reduce((a, b) => a + b), peaks[peaks.length >> 1], peaks[0]]);
  }
  return {times: out, compiling};
}"""


def given(*shape: int, dtype: str = "float32") -> Tensor:
    """An input of a Program."""
    return Tensor(Node(None, (), {}, shape, DTYPES[dtype]))


Case = tuple[list[Tensor], list[Tensor], int]  # inputs, outputs, how many of the inputs (the last ones) are weights


def matmul(m: int, k: int, n: int, dtype: str = "float32") -> Case:
    a, b = given(m, k), given(k, n, dtype=dtype)
    return [a, b], [nf.matmul(a, nf.astype(b, "float32"))], 1


def quantised(m: int, k: int, n: int, bits: int, activations: str | None = None) -> Case:
    """A product with weights of 8 or 4 bits in groups of 32."""
    x, numbers, scale = given(m, k), given(n, k * bits // 8, dtype="int8"), given(n, k // 32, dtype="float16")
    return [x, numbers, scale], [nf.quantized_matmul(x, numbers, scale, bits=bits, activations=activations)], 2


def convolution(
    n: int, size: int, ci: int, co: int, window: int, stride: int = 1, groups: int = 1, dtype: str = "float32"
) -> Case:
    x, w, bias = given(n, size, size, ci), given(window, window, ci // groups, co, dtype=dtype), given(co)
    wide = nf.astype(w, "float32")
    y = nn.relu(nn.conv2d(x, wide, stride=stride, padding=(window - 1) // 2, groups=groups) + bias)
    return [x, w, bias], [y], 2


def matmul_of_bytes(m: int, k: int, n: int, left: str = "int8") -> Case:
    a, b = given(m, k, dtype=left), given(k, n, dtype="int8")
    return [a, b], [nf.matmul(nf.astype(a, "int32"), nf.astype(b, "int32"))], 1


def convolution_of_bytes(size: int, ci: int, co: int, window: int, stride: int = 1, groups: int = 1) -> Case:
    """Bytes in, bytes out, bounded by 0."""
    x, w = given(1, size, size, ci, dtype="int8"), given(window, window, ci // groups, co, dtype="int8")
    bias, scale = given(co, dtype="int32"), given(co)
    wide = nf.astype(x, "int32"), nf.astype(w, "int32")
    sums = nn.conv2d(*wide, stride=stride, padding=(window - 1) // 2, groups=groups) + bias
    y = nf.round(nf.clip(nf.astype(sums, "float32") * scale, 0.0, 127.0))
    return [x, w, bias, scale], [nf.astype(y, "int8")], 3


def attention(heads: int, length: int, size: int) -> Case:
    q, k, v = (given(1, length, heads, size) for _ in range(3))
    scores = nn.softmax(nf.einsum("bqhd,bkhd->bhqk", q, k) * size**-0.5)
    return [q, k, v], [nf.einsum("bhqk,bkhd->bqhd", scores, v)], 0


def mlp_step(batch: int = 128) -> Case:
    x, labels = given(batch, 784), given(batch, dtype="int32")
    sizes = [784, 512, 512, 10]
    weights = [given(a, b) for a, b in itertools.pairwise(sizes)]

    def loss(*ws: Tensor) -> Tensor:
        y = x
        for n, w in enumerate(ws):
            y = nf.matmul(y, w)
            y = nn.relu(y) if n + 1 < len(ws) else y
        return nf.mean(nn.losses.cross_entropy(y, labels))

    value, grads = nf.value_and_grad(loss, argnums=tuple(range(len(weights))))(*weights)
    return [x, labels, *weights], [value, *(w - 0.01 * g for w, g in zip(weights, grads, strict=True))], 0


CASES: dict[str, Callable[[], Case]] = {
    "matmul_512": lambda: matmul(512, 512, 512),
    "matmul_1024": lambda: matmul(1024, 1024, 1024),
    "matvec_4096": lambda: matmul(1, 4096, 4096),
    "conv3_56_64": lambda: convolution(1, 56, 64, 64, 3),
    "conv3_28_128": lambda: convolution(1, 28, 128, 128, 3),
    "conv3_14_256": lambda: convolution(1, 14, 256, 256, 3),
    "conv3_7_512": lambda: convolution(1, 7, 512, 512, 3),
    "conv7_224_3": lambda: convolution(1, 224, 3, 64, 7, 2),
    "pointwise_28_192": lambda: convolution(1, 28, 192, 192, 1),
    "pointwise_14_96_576": lambda: convolution(1, 14, 96, 576, 1),
    "matmul_128_384_1536": lambda: matmul(128, 384, 1536),
    "matmul_128_384_1536_float16": lambda: matmul(128, 384, 1536, "float16"),
    "matvec_4096_float16": lambda: matmul(1, 4096, 4096, "float16"),
    "conv3_14_256_float16": lambda: convolution(1, 14, 256, 256, 3, dtype="float16"),
    "conv3_7_512_float16": lambda: convolution(1, 7, 512, 512, 3, dtype="float16"),
    "pointwise_14_96_576_float16": lambda: convolution(1, 14, 96, 576, 1, dtype="float16"),
    "matmul_1024_int8": lambda: matmul_of_bytes(1024, 1024, 1024),
    "matmul_1024_uint8": lambda: matmul_of_bytes(1024, 1024, 1024, "uint8"),
    "conv3_56_64_int8": lambda: convolution_of_bytes(56, 64, 64, 3),
    "pointwise_14_96_576_int8": lambda: convolution_of_bytes(14, 96, 576, 1),
    "pointwise_14_576_96_int8": lambda: convolution_of_bytes(14, 576, 96, 1),
    "pointwise_112_16_96_int8": lambda: convolution_of_bytes(112, 16, 96, 1),
    "depthwise_112_96": lambda: convolution(1, 112, 96, 96, 3, groups=96),
    "depthwise_112_96_int8": lambda: convolution_of_bytes(112, 96, 96, 3, groups=96),
    "depthwise_14_576_int8": lambda: convolution_of_bytes(14, 576, 576, 3, groups=576),
    "depthwise_7_960_int8": lambda: convolution_of_bytes(7, 960, 960, 3, groups=960),
    **{
        f"{name}_int{bits}{'_int8' * bool(rounded)}": partial(quantised, *sizes, bits, rounded)
        for name, sizes in {"matvec_4096": (1, 4096, 4096), "matmul_128_384_1536": (128, 384, 1536)}.items()
        for bits in (8, 4)
        for rounded in (None, "int8")
    },
    "attention_12": lambda: attention(12, 128, 32),
    "attention_512": lambda: attention(12, 512, 64),
    "mlp_step": mlp_step,
}


def program_of(case: Case, features: frozenset[str]) -> Program:
    inputs, outputs, weights = case
    graph, _ = trace([y.node for y in outputs], [x.node for x in inputs])
    first = len(inputs) - weights
    named = {first + n: f"w{n}" for n in range(weights)}
    return build(graph, Target("wasm", features, 32), weights=named).program


def limit(*, relaxed: bool) -> bytes:
    """A module whose `peak(n)` does n turns of 12 chains of a product and a sum in registers: PER_TURN operations."""
    f = Function(1)
    x, *sums = (f.local("v128") for _ in range(13))
    code = b"".join(v128(f32(0.5)[1:]) + put(s) for s in (x, *sums)) + OP["loop"]
    for s in sums:
        added = OP["f32x4.relaxed_madd"] if relaxed else OP["f32x4.add"]
        code += get(s) + get(x) + (b"" if relaxed else OP["f32x4.mul"]) + get(x) + added + put(s)
    code += get(0) + i32(1) + OP["i32.sub"] + tee(0) + OP["br_if"] + b"\0" + OP["end"]
    for s in sums:  # or all of it would be left out
        code += i32(0) + get(s) + OP["v128.store"] + memarg(0, 2)
    data, flag = module([("peak", 1, 0, f.body(code))])
    return data[:flag] + b"\1" + data[flag + 1 :]


PER_TURN = 12 * 4 * 2


def steps_of(program: Program) -> list[Step]:
    """Those of its main entry."""
    (entry,) = (e for e in program.entries if e.name != "prepare")
    return list(program.steps[entry.start : entry.stop])


def laid_out(program: Program) -> dict[str, Any]:
    """What the page needs to call each step: addresses of all buffers, and which hold numbers from the start."""
    at, end, fill = [], 65536 + program.arena, []
    for b in program.buffers:
        size = room(b.shape, DTYPES[b.dtype])
        if b.kind == "scratch":
            at.append(65536 + b.offset)
            continue
        at.append(at[b.alias] if b.alias >= 0 else end)
        if b.kind in ("input", "weight") and b.dtype == "float32":
            fill.append((end, size // 4))
        end += -(-size // 256) * 256
    calls = [(program.kernels[s.kernel].code, [at[b] for b in s.buffers], *s.size) for s in steps_of(program)]
    code = base64.b64encode(program.module).decode()
    return {"module": code, "flag": program.memory_flag, "calls": calls, "pages": end // 65536 + 2, "fill": fill}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}")
    parser.add_argument("--simd", action="store_true", help="without relaxed SIMD")
    parser.add_argument("--ms", type=int, default=150, help="how long each step is measured")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--least", action="store_true", help="the shortest of each part of the work: for a busy machine"
    )
    args = parser.parse_args()
    least = int(args.least)
    features = frozenset[str]() if args.simd else frozenset({"relaxed-simd"})
    with sync_playwright() as playwright, launch(playwright) as browser, Site(FOLDERS, isolated=True) as site:
        for name in args.cases or CASES:
            program = program_of(CASES[name](), features)
            page = browser.new_page()
            page.goto(f"{site.url}/blank.html")
            peak = base64.b64encode(limit(relaxed=not args.simd)).decode()
            answer = page.evaluate(PAGE, {**laid_out(program), "limit": peak, "ms": args.ms, "warm": 4 * args.ms})
            page.close()
            times = [t[least] for t in answer["times"]]
            peaks = [100000 * PER_TURN / t[2 + least] / 1e6 for t in answer["times"]]
            print(
                f"{name}: {sum(times):.3f} ms, module {len(program.module)} bytes, "
                f"compiled in {answer['compiling']:.0f} ms"
            )
            for step, ms, most in zip(steps_of(program), times, peaks, strict=True):
                kernel = program.kernels[step.kernel].name
                print(
                    f"  {ms:9.3f} ms  {step.cost / max(ms, 1e-3) / 1e6:7.1f} G/s (of {most:.0f})  {step.size}  {kernel}"
                )
            if args.json:
                print(json.dumps({name: times}))


if __name__ == "__main__":
    main()
