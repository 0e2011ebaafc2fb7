# ruff: noqa: E501 - the rows of the table are what they are
"""Plant mistakes in a copy of the tree, one at a time, and see whether the tests notice.

    python tools/mutants.py                       all; exit status 1 if fewer than 19 of 20 are caught
    python tools/mutants.py wgsl plan             those whose name contains one of the words
    python tools/mutants.py --slice 2/6           the second sixth
    python tools/mutants.py --record seen.jsonl   also appends a line of JSON for each; with --slice, all in parts
    python tools/mutants.py --sum seen.jsonl      runs nothing: sums up what was recorded; those never run are missed
    python tools/mutants.py --stale               runs nothing: says which records are out of date

Each record names a file, the text to change (which must stand there exactly once, else the record is out of date), the text
to put there, and the tests that should fail. Tests run with -x in the copy; they must pass there before anything is planted.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "tests", "web", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", ".cache", "browser")
TIMEOUT_S = 600
WANTED = 0.95


@dataclass(frozen=True)
class Mutant:
    """One mistake; `file` is below src/nearfield."""

    name: str
    file: str
    old: str
    new: str
    tests: str


OPS = "tests/test_ops.py -k "
GRADS = "tests/test_grads.py -k "
COMPILER = "tests/test_compiler.py"
JOIN = "tests/test_join.py"
PROGRAM = "tests/test_program.py"
KERNELS = "tests/test_kernels.py -k "
QUANTISED = "tests/test_quantize.py -k "
DIGITS = "tests/test_digits.py -k "
JIT = "tests/test_jit.py tests/test_jit_state.py"
HELD = "tests/test_holding.py tests/test_jit_state.py -m 'not slow'"

MUTANTS = [
    # What operations mean.
    Mutant("constant of exp", "ops/approximation.py", "0.041666552, 0.008363233", "0.041666552, 0.008763233", OPS + "exp"),
    Mutant("constant of atan", "ops/approximation.py", "0.1999954, -0.14263912", "0.1999954, -0.14363912", OPS + "atan"),
    Mutant("multiples in remainder", "ops/arithmetic.py", "wrong = k.not_equal(r, zero) & (k.less(r, zero) ^ k.less(y, zero))", "wrong = k.less(r, zero) ^ k.less(y, zero)",
           OPS + "remainder"),
    Mutant("division by zero", "ops/arithmetic.py", "k.select(k.equal(y, 0), _zero(x), q - k", "k.select(k.equal(y, 1), _zero(x), q - k",
           OPS + "floor_divide"),
    Mutant("fold of prod", "ops/reduce.py", '@reduction(kind="prod"', '@reduction(kind="sum"', OPS + "prod"),
    Mutant("argmax without NaN", "ops/reduce.py", "at = at | k.isnan(x)", "at = at", OPS + "argmax"),
    Mutant("index map of permute", "ops/movement.py", "return [i[axes.index(a)] for a", "return [i[axes[a]] for a", OPS + "permute"),
    Mutant("index map of slice", "ops/movement.py", "return [v * h + b for", "return [v * h + abs(b) * (h > 0) for", OPS + "slice"),
    Mutant("guard of pad", "ops/movement.py", "if h > 1:\n            mask = mask & k.equal(q % h, ZERO)", "if h > 1:", OPS + "pad"),
    Mutant("guard of conv", "ops/contraction.py", 'k.const((size - 1) * spread + 1, "index"))\n        if spread > 1:',
           'k.const(size * spread + 1, "index"))\n        if spread > 1:', OPS + "conv"),
    Mutant("letters of einsum", "ops/contraction.py", "for c in dict.fromkeys(a + b) if c not in place]", "for c in dict.fromkeys(a) if c not in place]",
           OPS + "einsum"),
    # Quantised weights.
    Mutant("halves of a byte", "functional/quantize.py", "bitwise_or(low & 15,", "bitwise_or(low,", QUANTISED + "nearest"),
    Mutant("limit of a scale", "functional/quantize.py", "minimum(exact * (1 + 2**-10) + 2**-24, LARGEST)", "exact * (1 + 2**-10) + 2**-24", QUANTISED + "zeros"),
    Mutant("widened where it is read", "compiler/fuse.py", "(self.widens(i) or (self.few and self.scales(i))):", "self.few and self.scales(i):", QUANTISED + "wide_copy"),
    Mutant("quantised weights are not kept wide", "compiler/pack.py", "elif is_quantised(self.lines, b):", "elif False:", QUANTISED + "wide_copy"),
    Mutant("pieces that are not there", "compiler/wgsl_matvec.py", 'return text if term.inside.op == "const" else', "return text if True else",
           QUANTISED + '"share_out and webgpu"'),
    Mutant("columns too many", "compiler/wgsl_matvec.py", "if found.column.value[1] % self.columns:", "if False:", QUANTISED + '"share_out and webgpu"'),
    Mutant("numbers in high halves", "compiler/wgsl_matvec.py", "unit = 8 - dots[0][1].bits", "unit = 0", QUANTISED + '"share_out and webgpu"'),
    Mutant("digits that go around", "compiler/digits.py", "MOST = 0x7F7F00", "MOST = 0x7FFF00", DIGITS + '"extreme and webgpu"'),
    Mutant("pieces of a group in their own order", "compiler/digits.py", "axes=(0, 2, 1, 3))", "axes=(0, 1, 2, 3))", DIGITS + '"exact and webgpu"'),
    Mutant("digits for any product", "compiler/digits.py", "if met[p.x, self.old[p.numbers].shape[-1]] >= WORTH}", "if met}", DIGITS + "alone"),
    Mutant("program for wasmtime", "deploy/model.py", "row.code_generator != device.code_generator", "row.code_generator == device.code_generator", "tests/test_deploy.py"),
    Mutant("b first in the last row", "compiler/wasm_tile.py", "(get(v), get(self.splat)) if self.block and fused and r == last", "(get(v), get(v)) if self.block and fused and r == last", "tests/test_contraction.py"),
    Mutant("second number of a byte", "compiler/wasm_quantised.py", "one + self.plan.half)):", "one)):", QUANTISED + '"panels and wasm"'),
    Mutant("scales of the next group", "compiler/wasm_quantised.py", 'self.emit(get(self.group) + i32(PANEL * scale.size) + OP["i32.add"] + put(self.group))',
           "pass", QUANTISED + '"panels and wasm"'),
    # Gradients.
    Mutant("gradient of divide", "ops/arithmetic.py", "(g / y, -g * z / y)", "(g / y, g * z / y)", GRADS + "divide"),
    Mutant("gradient of einsum", "ops/contraction.py", "_side(g, b, a, out, lb, la), _side(g, a, b, out, la, lb)",
           "_side(g, b, a, out, lb, la), _side(g, b, a, out, lb, la)", GRADS + "einsum"),
    Mutant("gradient of slice", "ops/movement.py", "first = b if s > 0 else b + (m - 1) * s", "first = b", GRADS + "slice"),
    Mutant("gradient of conv", "ops/contraction.py", "low = [reach[d] - pad[d][0] for d in axes]", "low = [reach[d] - pad[d][1] for d in axes]",
           GRADS + "conv"),
    Mutant("sum of gradients", "grad.py", "g if held is None else held + g", "g", "tests/test_grads.py tests/test_nn.py"),
    # Index arithmetic and the compiler.
    Mutant("quotients of sums", "index.py", 'if rest.op == "div":\n        rest, n = rest.args[0], n * int(rest.args[1].value)',
           'if rest.op == "div":\n        rest, n = rest.args[0], n + int(rest.args[1].value)', "tests/test_index.py"),
    Mutant("remainders of sums", "index.py", 'return add(mul(small, k.const(common, "index")), k.const(constant % common, "index"))',
           'return mul(small, k.const(common, "index"))', "tests/test_index.py"),
    Mutant("quotients of negative sums", "index.py", "shift = -(rest.low // n)\n        qc, rc = qc - shift", "shift = -(rest.low // n)\n        qc, rc = qc", "tests/test_index.py"),
    Mutant("bounds of an index", "index.py", "if d.high < 0:\n        return k.const(True", "if d.high <= 0:\n        return k.const(True", "tests/test_index.py"),
    Mutant("parts of a row are kept by one of its sums", "compiler/wasm_fold.py", "if kept is None or self.inner not in kept.value.free:", "if kept is None:",
           "tests/test_rows.py -k sum_of_sums"),
    Mutant("masks of a reduction in a reduction", "compiler/wasm_fold.py", ' or any(x.op == "reduce" for x in walk(bodies))', "", "tests/test_rows.py -k padded_rows"),
    Mutant("long rows are cut", "compiler/simplify.py", "            most = ROWS\n", "            pass\n", "tests/test_compiler.py -k long_rows"),
    Mutant("long reductions", "compiler/simplify.py", "a if a < axis else a + 1 for a in axes", "a if a <= axis else a + 1 for a in axes",
           KERNELS + "long"),
    Mutant("fusion of epilogues", "compiler/fuse.py", "return not (self.anchor(i) or self.passes(i) or self.goes_on(i))", "return True", COMPILER),
    Mutant("fusion that changes uses", "compiler/fuse.py", "if moves and (len(ways) > 1 or self.lines[users[0]].op not in movement):", "if False:", COMPILER),
    Mutant("a product made twice", "compiler/fuse.py", "(i not in self.stored and not self.stores_between(i, root)):", "i not in self.stored:",
           COMPILER + " -k several_ways"),
    Mutant("columns of joined products", "compiler/join.py", "at += columns", "at += 0", JOIN),
    Mutant("joined with what changes", "compiler/join.py", "self.weight(line.args[1]) in self.steady:", "self.weight(line.args[1]) >= 0:", JOIN),
    Mutant("joined before they are rounded", "compiler/join.py", "(widened or not casts)", "casts < 3", JOIN),
    Mutant("products that are needed without bias", "compiler/join.py", "len(users) != 1 or self", "self", JOIN),
    Mutant("an odd number of parts", "compiler/split.py", "sums = [*pairs, *sums[2 * len(pairs) :]]", "sums = pairs", JOIN),
    Mutant("order of groups", "compiler/group.py", "if any(at in self.needs[s] for s in sources if s != at):", "if False:", KERNELS + "waits"),
    Mutant("serial numbers of what a step writes", "device/call.py", "serials[place] = inputs[place].serial = next_serial()",
           "serials[place] = inputs[place].serial", "tests/test_steady.py -k predictions"),
    Mutant("inputs that are others than before", "device/call.py", "if place in call.taken or (call.taken and", "if (call.taken and",
           "tests/test_devices.py -k in_a_row"),
    Mutant("what was made of old weights", "steady.py", "if serials != self.made.serials:", "if self.made.serials is None:",
           "tests/test_steady.py -k predictions"),
    Mutant("lifetimes", "compiler/plan.py", "last[root] = at", "last.setdefault(root, at)", COMPILER),
    Mutant("offsets in the arena", "compiler/plan.py", "if last[other] < start or", "if last[other] <= start or", COMPILER),
    Mutant("updates in place", "compiler/plan.py", "return _loaded(kernel).get(old) == {(store.index,)}", "return bool(_loaded(kernel).get(old))",
           "tests/test_compiler.py tests/test_jit.py"),
    Mutant("inputs given away", "compiler/plan.py", "or (from_input and candidate not in self.givable)", "", "tests/test_compiler.py tests/test_jit.py"),
    Mutant("nearest in WGSL", "compiler/wgsl.py", '"nearest": "round({0})"', '"nearest": "trunc({0})"', "tests/test_k.py"),
    Mutant("arms of select in WGSL", "compiler/wgsl.py", '"select({2}, {1}, {0})"', '"select({1}, {2}, {0})"', "tests/test_k.py"),
    Mutant("halves in WGSL", "compiler/wgsl.py", "0xc8000fffu", "0xc8001000u", KERNELS + "halves"),
    Mutant("identity of min and max in WGSL", "compiler/wgsl_rows.py", "neutral = identity(kind, node.type)", 'neutral = identity("sum", node.type)', KERNELS + "rows"),
    Mutant("guard of a kernel", "compiler/wgsl_points.py", 'f"  if (p >= {threads}) {{ return; }}",', '"",', KERNELS + "order"),
    Mutant("grid in two directions", "compiler/wgsl_points.py", "i32(id.y * groups.x * {group}u + id.x)", "i32(id.x)", KERNELS + "workgroups"),
    Mutant("half of a grid is idle", "compiler/wgsl_points.py", "return -(-groups // deep), deep, 1", "return min(groups, MOST), deep, 1", KERNELS + "grids"),
    Mutant("second vector of a workgroup", "compiler/wgsl_points.py", "{axis: first + n * LARGE_GROUP}", "{axis: first + n}", KERNELS + "two_vectors"),
    Mutant("only read beside what is written", "compiler/wgsl_access.py", "if memory[numbers[place]] in held}", "if False}", "tests/test_access.py -k results"),
    Mutant("one thing given twice", "compiler/wgsl_access.py", 'return "input"', "return number", "tests/test_access.py -k results"),
    Mutant("tickets are not new again", "compiler/wasm_threads.py", 'i64(0) + OP["i64.store"] + memarg(at, 3)', 'i64(0) + OP["drop"] + OP["drop"]', "tests/test_wasm_threads.py"),
    Mutant("more steps than tickets", "compiler/wasm_threads.py", "if barrier or used == SLOTS:", "if barrier:", "tests/test_wasm_threads.py"),
    Mutant("one stretch of tickets", "compiler/wasm_threads.py", "used, stretch = 0, 1 - stretch if used else stretch", "used = 0", "tests/test_wasm_threads.py"),
    Mutant("a piece of sixteenths twice", "compiler/wasm_threads.py", "number + one + sub + small", "number + small", "tests/test_wasm_threads.py"),
    Mutant("tickets of a call that trapped", "device/wasmtime.py", "            self.device.view[TICKETS:RESERVED] = bytes(RESERVED - TICKETS)\n", "", "tests/test_device_drivers.py -k trap"),
    Mutant("barrier of a row", "compiler/wgsl_rows.py", '= {mine};", "workgroupBarrier();"]', '= {mine};"]', KERNELS + "rows"),
    Mutant("barrier of a tile", "compiler/wgsl_tile.py", '["workgroupBarrier();", *put, "workgroupBarrier();"]', '["workgroupBarrier();", *put]', KERNELS + '"tile or tiling"'),
    Mutant("vectors of elements askew", "compiler/wgsl_vectors.py", " and multiple(start, VECTOR) else None", " else None", KERNELS + '"neighbours"'),
    Mutant("edge of a tile", "compiler/wgsl_tile.py", 'inside = k.less(first if whole else step, k.const(length, "index"))', 'inside = k.const(True, "bool")', KERNELS + '"tile or tiling"'),
    Mutant("a NaN that no sum tells", "compiler/wasm_rows.py", "if tell and all(_passes_nan(v, tell) for v in values):", "if tell:",
           "tests/test_rows.py -k leave_nan"),
    Mutant("quotients of nothing but -inf", "compiler/wasm_rows.py", "k.select(k.equal(_largest(powers[power]), -inf), nan, 1.0 / below)", "1.0 / below",
           "tests/test_rows.py -k nan_anywhere"),
    Mutant("bytes of rows copied whole", "compiler/wasm_loops.py", 'OP["i32.sub"] + i32(size) + OP["i32.mul"]', 'OP["i32.sub"] + i32(4) + OP["i32.mul"]',
           "tests/test_wasm.py -k copied_whole"),
    Mutant("panels that are left", "compiler/wasm_streams.py", "last + i32(STREAMS - 1)", "last + i32(0)", "tests/test_contraction.py -k four_panels"),
    Mutant("a sum whose arguments became numbers", "index.py", 'if a.op == "const":\n            constant += c * a.value', 'if a.op == "const":\n            constant += a.value', "tests/test_index.py"),
    Mutant("order of a sum with other arguments", "index.py", "is_settled = False\n", "is_settled = True\n", "tests/test_index.py"),
    Mutant("bounds of a sum", "index.py", "low += c * t.high\n            high += c * t.low", "low += c * t.low\n            high += c * t.high", "tests/test_index.py"),
    Mutant("axes that look apart", "compiler/wgsl_axes.py", "terms.get(inner, 0) * size", "terms.get(inner, 0)", "tests/test_compiler.py -k axes_are_one"),
    Mutant("neighbours of a tile's step", "compiler/wgsl_tile.py", "step = first + later", "step = first", KERNELS + '"tile or tiling"'),
    Mutant("numbers of a condition before a barrier", "compiler/wgsl_numbers.py", 'or "fn finish(" in text', "or True", "tests/test_numbers.py"),
    Mutant("numbers that the next kernel reads", "compiler/wgsl_numbers.py", "zip(*differing, strict=True)", "zip(*differing[::-1], strict=True)", "tests/test_numbers.py"),
    Mutant("numbers of a large kernel", "compiler/wgsl_numbers.py", "if most[n] < LARGE and", "if", "tests/test_numbers.py"),
    Mutant("room for numbers", "compiler/wgsl_numbers.py", "kernel.bindings < bindings", "kernel.bindings <= bindings", "tests/test_numbers.py"),
    Mutant("quotient of a quotient", "index.py", "quotient = div(x, term.args[1])", 'quotient = k.make("div", "index", (x, term.args[1]))', "tests/test_index.py -k recombine"),
    Mutant("nearest in WebAssembly", "compiler/wasm_bytes.py", "ceil floor trunc nearest sqrt", "ceil floor nearest trunc sqrt", "tests/test_k.py tests/test_wasm.py"),
    Mutant("infinite float16 weights", "compiler/wasm_storage.py", '_each(f, 0x0F800000) + OP["i32x4.eq"]', '_each(f, 0x0F000000) + OP["i32x4.eq"]', "tests/test_contraction.py"),
    Mutant("wide results in blocks", "compiler/wasm_contraction.py", "near = min(near, max(1, STORED", "near = max(near, max(1, STORED", "tests/test_contraction.py"),
    Mutant("cases of an axis", "compiler/wasm_cases.py", "{v: first + n}", "{v: first}", "tests/test_winograd.py"),
    Mutant("tiles of an image", "compiler/winograd.py", 'out.op("subtract", d[2], d[1])', 'out.op("subtract", d[1], d[2])', "tests/test_winograd.py"),
    Mutant("odd results of tiles", "compiler/pack.py", "(low, high + n)", "(low, high)", "tests/test_winograd.py"),
    Mutant("order of panels", "compiler/pack.py", "axes=tuple(order.index(c) for c in spec.right))", "axes=tuple(spec.right.index(c) for c in order))", "tests/test_contraction.py"),
    Mutant("rows of a window outside the image", "compiler/wasm_depthwise.py", 'masked = get(self.mask) + OP["v128.and"] if self.masked else b""', 'masked = b""', "tests/test_bytes.py"),
    Mutant("channels at the end", "compiler/wasm_depthwise.py", "last, past = i32(n - LANES)", "last, past = i32(n - n % LANES)", "tests/test_bytes.py"),
    Mutant("a NaN below a bound", "compiler/wasm_values.py", "if node in self.firm:", "if False:", "tests/test_bytes.py"),
    Mutant("what sums begin with", "compiler/wasm_rounding.py", "or not other.free <= along", "", "tests/test_bytes.py tests/test_contraction.py"),
    Mutant("one scale for what is added", "nn/quantize_static.py", "shared[chain.end] = shared[chain.residual]", "pass", "tests/test_quantize_static.py"),
    Mutant("bounds before a sum", "nn/quantize_static.py", "bounded = result if (low, high) == (-inf, inf) else clip(result, low, high)", "bounded = result", "tests/test_quantize_static.py"),
    Mutant("outputs made once", "compiler/prepare.py", "and i not in anew and", "and", "tests/test_prepare.py"),
    Mutant("places that end in the next list", "compiler/wgsl_scatter.py", "if (start + near < {self.rows} && apart", "if (apart", "tests/test_scatter.py"),
    Mutant("steps beyond the last", "compiler/wgsl_chain.py", 'value if inside.op == "const" else k.select(inside, value, identity(kind, value.type))', "value", "tests/test_chain.py"),
    Mutant("rows added elsewhere", "compiler/wasm_scatter.py", "k.load(scatter.store.argument, index, scatter.term.type)", "k.const(0, scatter.term.type)", "tests/test_scatter.py"),
    # Programs, devices, state.
    Mutant("length of a file", "program/codec.py", "if start + data != len(rest):", "if start + data > len(rest):", PROGRAM),
    Mutant("bounds of the arena", "program/verify.py", "if offset + nbytes > size:", "if offset > size:", PROGRAM),
    Mutant("overlapping arguments", "program/verify.py", "begin < max(stop, start + 1)", "begin < start", PROGRAM),
    Mutant("what was prepared is stale", "device/wasmtime.py", "if self._stale:", "if False:", "tests/test_devices.py -k prepared"),
    Mutant("shapes of a graph", "graph/verify.py", "!= (line.shape, line.dtype)", "!= (tuple(found[0]), line.dtype)", "tests/test_graph.py"),
    Mutant("joining free blocks", "device/allocator.py", "self._remove(address + size)\n            size += after", "self._remove(address + size)",
           "tests/test_device_drivers.py"),
    Mutant("blocks of a cycle", "device/wgpu_pool.py", "self._made[self._count] = buffer", "self._made[self._count] = None", "tests/test_memory.py -m 'not slow'"),
    Mutant("memory that two share", "runtime.py", " and sys.getrefcount(node.value) <= 2:", ":", "tests/test_memory.py -k views"),
    Mutant("one bad expression", "runtime.py", "if len(wanted) == 1:\n            raise", "raise", "tests/test_memory.py -m 'not slow'"),
    Mutant("dtype in jit's signature", "jit.py", "parts.append((node.shape, node.dtype))", "parts.append(node.shape)", "tests/test_jit.py"),
    Mutant("state whose memory two share", "replay.py", "zip(counts, (3, 3, 4), strict=True)", "zip(counts, (9, 3, 4), strict=True)", JIT),
    Mutant("state that somebody holds", "replay.py", "zip(counts, (3, 3, 4), strict=True)", "zip(counts, (3, 9, 4), strict=True)", JIT),
    Mutant("state that is pending", "replay.py", "zip(counts, (3, 3, 4), strict=True)", "zip(counts, (3, 3, 9), strict=True)", JIT),
    Mutant("state follows whatever interrupts", "replay.py", "        with Uninterrupted():\n            fresh = self._repeated(memories)", "        if True:\n            fresh = self._repeated(memories)",
           "tests/test_interruption.py -k moved"),
    Mutant("addresses after an interruption", "device/call.py", "        self.token = 0\n        self.seen.clear()", "        pass", "tests/test_interruption.py -k half"),
    Mutant("kept state that somebody holds", "holding.py", "if counts != self._counts and", "if counts is None and", HELD),
    Mutant("kept state in an expression", "holding.py", "if made == self._alone:", "if self._alone >= 0:", HELD),
    Mutant("kept state in a list or dict", "holding.py", "all(map(is_, container.values(), self.values))", "True", HELD),
    Mutant("kept state that is assigned", "state.py", "            tell(self)", "            pass", HELD),
    Mutant("kept state in a dict that tells", "state.py", "super().__setitem__(name, value)\n        tell(self)", "super().__setitem__(name, value)", HELD),
    Mutant("kept state of two devices", "holding.py", "return self.device is device", "return True", HELD),
    Mutant("kept state on another device", "runtime.py", "if not isinstance(value, HOST):\n            tell()", "if not isinstance(value, HOST):\n            pass", HELD),
    Mutant("serial numbers of kept state", "steady.py", "        settle_serials()\n", "", HELD),
    Mutant("repeated calls with another token", "device/call.py", "if token and call.token == token and", "if token and call.token and",
           "tests/test_devices.py -k repeated"),
    Mutant("pull back after its value", "grad.py", "return [_Step(n, n.op, n.args) for n in nodes if n", "return [_Step(n, n.op, ()) for n in nodes if n",
           "tests/test_memory.py -k pull"),
    Mutant("order of state made in a trace", "jit.py", "for name in [name for name in new if name not in old]:", "for name in new.keys() - old.keys():", "tests/test_cache.py"),
    Mutant("what a page keeps, after making room", "program/cache.py", "            self.mirror.remove(path.name)", "            pass", "tests/test_cache.py"),
    Mutant("state after a trace", "jit.py", "finally:\n            with Uninterrupted():\n                for owner, tensors in zip(owners, before, strict=True):\n                    owner.set_state_tensors(tensors)",
           "finally:\n            pass", "tests/test_jit.py tests/test_memory.py -m 'not slow'"),
    Mutant("state is put back whatever interrupts", "jit.py", "finally:\n            with Uninterrupted():", "finally:\n            if True:",
           "tests/test_interruption.py -k put_back"),
    Mutant("promotion table", "dtype.py", '"uint8": {"int8": "int32"}', '"uint8": {"int8": "int8"}', "tests/test_dtype.py"),
    Mutant("what bytes without a sign add to sums", "compiler/pack_bytes.py", 'y = packer.op("multiply", y, _number(packer, packer.lines[y].shape))', "pass",
           "tests/test_bytes.py -k sign"),
    Mutant("edge of pixels and channels as one axis", "compiler/wasm_edges.py", "k.less(u, -constant * n)", "k.less(u, -constant * n + 1)", "tests/test_wasm.py -k padded"),
    Mutant("rows that are all edge", "compiler/wasm_loops.py", "places[0] + i32(0) + count", "places[0] + i32(1) + count", "tests/test_wasm.py -k padded"),
    Mutant("what is fetched behind the last panel", "compiler/wasm_tile.py", "i32(extent(plan.panel) - 1)", "i32(extent(plan.panel))", "tests/test_next_panel.py"),
    Mutant("pace at which the next panel is fetched", "compiler/wasm_tile.py", "self.panel_bytes // max(1, turns", "2 * self.panel_bytes // max(1, turns", "tests/test_next_panel.py"),
    Mutant("rows of a strip", "compiler/wasm_strips.py", "row: strip * size + inside", "row: strip * size", "tests/test_contraction.py -k strips"),
    Mutant("bias correction of Adam", "optim/adam.py", "return m * (spread / first)", "return m / first", "tests/test_optim.py"),
    Mutant("momentum of SGD", "optim/sgd.py", "m = slots[0] * self.momentum + g", "m = slots[0] * self.momentum - g", "tests/test_optim.py"),
    Mutant("draws of a generator", "random.py", 'self.state = self.state + leaf(struct.pack("<2I", 0, 1)', 'self.state = self.state + leaf(struct.pack("<2I", 0, 0)',
           "tests/test_random.py"),
]  # fmt: skip


def run_tests(folder: Path, tests: str) -> tuple[bool, str]:
    """Whether the tests pass in the copy, and the first that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *shlex.split(tests)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no end within {TIMEOUT_S} s"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode not in (0, 1, 2) or (done.returncode == 2 and not failed):
        sys.exit(f"pytest {tests}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0, failed[0].partition("::")[2].partition(" - ")[0] if failed else ""


def out_of_date(mutant: Mutant, text: str) -> str:
    """What is wrong with a record, given the file it is about; nothing if nothing is."""
    count = text.count(mutant.old)
    if count == 1:
        compile(text.replace(mutant.old, mutant.new), mutant.name, "exec")
    found = f"mutants: {mutant.name!r}: its text stands {count} times in {mutant.file}; accepted is once. Update the record."
    return "" if count == 1 else found


def copy_tree(folder: Path) -> None:
    """What the tests need, without the browser's."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=LEFT_OUT)
        else:
            shutil.copy(source, folder / name)


def main() -> int:
    """Plant each chosen mistake, test, take it out again; print a table."""
    parser = argparse.ArgumentParser(description="Mistakes that the tests should catch")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--slice", default="1/1", metavar="N/OF")
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("--sum", type=Path, metavar="FILE")
    parser.add_argument("--stale", action="store_true")
    asked = parser.parse_args()
    if asked.sum:
        rows = [json.loads(line) for line in asked.sum.read_text().splitlines()]
        return judged(MUTANTS, {row["name"] for row in rows if row["caught"]})
    part, parts = map(int, asked.slice.split("/"))
    chosen = [m for m in MUTANTS if not asked.words or any(word in m.name for word in asked.words)]
    chosen = chosen[len(chosen) * (part - 1) // parts : len(chosen) * part // parts]
    package = ROOT / "src" / "nearfield"
    stale = [text for m in chosen if (text := out_of_date(m, (package / m.file).read_text()))]
    if stale or asked.stale:
        sys.exit("\n".join(stale) or 0)
    return judged(chosen, planted(chosen, asked.record))


def planted(chosen: list[Mutant], record: Path | None) -> set[str]:
    """The names of those that were caught."""
    found = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        for tests in dict.fromkeys(m.tests for m in chosen):
            passed, failed = run_tests(folder, tests)
            if not passed:
                sys.exit(f"mutants: {tests}: {failed} fails before anything is planted.")
        for m in chosen:
            is_caught = caught(folder, m)
            if is_caught:
                found.add(m.name)
            if record:
                with record.open("a") as file:
                    file.write(json.dumps({"name": m.name, "caught": is_caught}) + "\n")
    return found


def judged(chosen: list[Mutant], found: set[str]) -> int:
    """Say how many were caught, and which were not; the exit status."""
    missed = [m.name for m in chosen if m.name not in found]
    share = 1 - len(missed) / max(len(chosen), 1)
    print(f"\n{len(chosen) - len(missed)} of {len(chosen)} caught ({share:.0%}); at least {WANTED:.0%} are wanted")
    if missed:
        print("missed:", *missed, sep="\n  ")
    return 0 if share >= WANTED else 1


def caught(folder: Path, mutant: Mutant) -> bool:
    """Whether the tests notice one mistake; a row of the table."""
    path = folder / "src" / "nearfield" / mutant.file
    right = path.read_text()
    path.write_text(right.replace(mutant.old, mutant.new))
    start = time.perf_counter()
    try:
        passed, failed = run_tests(folder, mutant.tests)
    finally:
        path.write_text(right)
    took = time.perf_counter() - start
    print(f"{'MISSED' if passed else 'caught':7} {took:5.1f} s  {mutant.name:30} {mutant.file:26} {failed}", flush=True)
    return not passed


if __name__ == "__main__":
    sys.exit(main())
