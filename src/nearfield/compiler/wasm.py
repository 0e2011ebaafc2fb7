"""How WebAssembly spells each instruction of K: one table for single values, one for four 32-bit lanes.

A row maps the type of the arguments to bytes that follow the arguments' code, or to a function that makes the code from
theirs. A truth value is 0 or 1 in scalar code, and all bits of a lane in SIMD code. What an instruction means at the
edges is written in docs/spec/k.md; where WebAssembly would trap or differ, the spelling says what it does about it.
"""

from collections.abc import Callable, Sequence

from .wasm_bytes import OP, Function, f32, f64, get, i32, i64, put, tee, v128
from .wasm_storage import narrow_lanes, narrow_scalar, widen_lanes, widen_scalar

__all__ = ["LANES", "SCALAR", "VALUE", "spell", "spell_lanes"]

Spelling = bytes | Callable[[Function, Sequence[bytes]], bytes]
VALUE = {
    "float32": "f32",
    "float64": "f64",
    "int32": "i32",
    "uint32": "i32",
    "int64": "i64",
    "bool": "i32",
    "index": "i32",
}


def _in(prefix: str, name: str) -> bytes:
    return OP[f"{prefix}.{name}"]


def _reals(name: str) -> dict[str, Spelling]:
    return {"float32": _in("f32", name), "float64": _in("f64", name)}


def _wholes(name: str, unsigned: str = "") -> dict[str, Spelling]:
    row: dict[str, Spelling] = {
        "int32": _in("i32", name),
        "uint32": _in("i32", unsigned or name),
        "int64": _in("i64", name),
    }
    return row


def _numbers(name: str) -> dict[str, Spelling]:
    return {**_reals(name), **_wholes(name)}


def _compared(name: str, signed: bool = True) -> dict[str, Spelling]:
    if not signed:
        return {**_numbers(name), "bool": _in("i32", name)}
    return {**_reals(name), **_wholes(f"{name}_s", f"{name}_u"), "bool": _in("i32", f"{name}_u")}


def _extreme(kind: str, less: str) -> Spelling:
    """The argument that `less` says is the smaller (or larger)."""

    def code(f: Function, a: Sequence[bytes]) -> bytes:
        x, y = f.spare(kind), f.spare(kind, 1)
        return a[0] + a[1] + put(y) + put(x) + get(x) + get(y) + get(x) + get(y) + OP[less] + OP["select"]

    return code


def _number(kind: str, n: int) -> bytes:
    return i32(n) if kind == "i32" else i64(n)


def _quotient(kind: str) -> Spelling:
    """Signed division: by 0 and by -1 it would trap (on the most negative), and x y is the answer for both."""

    def code(f: Function, a: Sequence[bytes]) -> bytes:
        x, y, odd = f.spare(kind), f.spare(kind, 1), f.spare("i32", 2)
        rare = get(y) + _number(kind, 1) + _in(kind, "add") + _number(kind, 2) + _in(kind, "lt_u") + put(odd)
        safe = _number(kind, 1) + get(y) + get(odd) + OP["select"]
        whole = get(x) + get(y) + _in(kind, "mul") + get(x) + safe + _in(kind, "div_s") + get(odd) + OP["select"]
        return a[0] + a[1] + put(y) + put(x) + rare + whole

    return code


def _rest(kind: str) -> Spelling:
    """Signed remainder: by 0 and by -1 it is what division by 1 leaves, 0."""

    def code(f: Function, a: Sequence[bytes]) -> bytes:
        y = f.spare(kind, 1)
        rare = get(y) + _number(kind, 1) + _in(kind, "add") + _number(kind, 2) + _in(kind, "lt_u")
        return a[0] + a[1] + put(y) + _number(kind, 1) + get(y) + rare + OP["select"] + _in(kind, "rem_s")

    return code


def _unsigned_quotient(f: Function, a: Sequence[bytes]) -> bytes:
    y = f.spare("i32", 1)
    divided = a[0] + a[1] + tee(y) + get(y) + OP["i32.eqz"] + OP["i32.or"] + OP["i32.div_u"]
    return i32(0) + divided + get(y) + OP["i32.eqz"] + OP["select"]


def _unsigned_rest(f: Function, a: Sequence[bytes]) -> bytes:
    y = f.spare("i32", 1)
    return a[0] + a[1] + tee(y) + get(y) + OP["i32.eqz"] + OP["i32.or"] + OP["i32.rem_u"]


def _real_rest(kind: str, local: str) -> Spelling:
    """x - y trunc(x / y)"""

    def code(f: Function, a: Sequence[bytes]) -> bytes:
        x, y = f.spare(local, 0), f.spare(local, 1)
        times = get(y) + get(x) + get(y) + _in(kind, "div") + _in(kind, "trunc") + _in(kind, "mul")
        return a[0] + a[1] + put(y) + put(x) + get(x) + times + _in(kind, "sub")

    return code


def _whole_abs(kind: str, width: int) -> Spelling:
    def code(f: Function, a: Sequence[bytes]) -> bytes:
        x, s = f.spare(kind), f.spare(kind, 1)
        sign = get(x) + _number(kind, width - 1) + _in(kind, "shr_s") + tee(s)
        return a[0] + tee(x) + sign + _in(kind, "xor") + get(s) + _in(kind, "sub")

    return code


def _minus(kind: str) -> Spelling:
    return lambda f, a: _number(kind, 0) + a[0] + _in(kind, "sub")


def _unequal_to_itself(kind: str, local: str) -> Spelling:
    def code(f: Function, a: Sequence[bytes]) -> bytes:
        return a[0] + tee(f.spare(local)) + get(f.spare(local)) + _in(kind, "ne")

    return code


def _power2(magic: float, kind: str, word: str, digits: int) -> Spelling:
    """Added to a large number, the exponent stands in the last digits of the sum, and is moved to its place."""
    constant = f32(magic) if kind == "f32" else f64(magic)
    whole = constant + _in(kind, "add") + _in(word, f"reinterpret_{kind}") + _number(word, digits) + _in(word, "shl")
    return whole + _in(kind, f"reinterpret_{word}")


def _half(f: Function, a: Sequence[bytes]) -> bytes:
    return widen_scalar(f, "float16", narrow_scalar(f, "float16", a[0]))


def _half_lanes(f: Function, a: Sequence[bytes]) -> bytes:
    return widen_lanes(f, "float16", narrow_lanes(f, "float16", a[0]))


def _logic(name: str) -> dict[str, Spelling]:
    return {**_wholes(name), "bool": _in("i32", name)}


def _chosen(f: Function, a: Sequence[bytes]) -> bytes:
    return a[1] + a[2] + a[0] + OP["select"]


MAGIC = 1.5 * 2.0**23 + 127, 1.5 * 2.0**52 + 1023  # what `power2` adds: the last digits count ones; and the bias
_SIGNED_REST: dict[str, Spelling] = {"int32": _rest("i32"), "int64": _rest("i64"), "uint32": _unsigned_rest}
_CASTS: dict[str, Spelling] = {
    **{f"float{n}>int32": _in("i32", f"trunc_sat_f{n}_s") for n in (32, 64)},
    **{f"float{n}>uint32": _in("i32", f"trunc_sat_f{n}_u") for n in (32, 64)},
    **{f"float{n}>int64": _in("i64", f"trunc_sat_f{n}_s") for n in (32, 64)},
    **{f"int32>float{n}": _in(f"f{n}", "convert_i32_s") for n in (32, 64)},
    **{f"uint32>float{n}": _in(f"f{n}", "convert_i32_u") for n in (32, 64)},
    **{f"bool>float{n}": _in(f"f{n}", "convert_i32_u") for n in (32, 64)},
    **{f"int64>float{n}": _in(f"f{n}", "convert_i64_s") for n in (32, 64)},
    "float32>float64": OP["f64.promote_f32"], "float64>float32": OP["f32.demote_f64"],
    "int32>uint32": b"", "uint32>int32": b"", "bool>int32": b"", "bool>uint32": b"", "int32>int32": b"",
    "int32>int64": OP["i64.extend_i32_s"], "uint32>int64": OP["i64.extend_i32_u"], "bool>int64": OP["i64.extend_i32_u"],
    "int64>int32": OP["i32.wrap_i64"], "int64>uint32": OP["i32.wrap_i64"],
    "float32>bool": f32(0) + OP["f32.ne"], "float64>bool": f64(0) + OP["f64.ne"],
    "int32>bool": i32(0) + OP["i32.ne"], "uint32>bool": i32(0) + OP["i32.ne"], "int64>bool": i64(0) + OP["i64.ne"],
}  # fmt: skip
_BITS: dict[str, Spelling] = {
    **{f"float32>{t}": OP["i32.reinterpret_f32"] for t in ("int32", "uint32")},
    **{f"{t}>float32": OP["f32.reinterpret_i32"] for t in ("int32", "uint32")},
    "float64>int64": OP["i64.reinterpret_f64"], "int64>float64": OP["f64.reinterpret_i64"],
    "int32>uint32": b"", "uint32>int32": b"",
}  # fmt: skip

SCALAR: dict[str, dict[str, Spelling]] = {
    "add": _numbers("add"), "sub": _numbers("sub"), "mul": _numbers("mul"),
    "div": {**_reals("div"), "int32": _quotient("i32"), "int64": _quotient("i64"), "uint32": _unsigned_quotient,
            "index": OP["i32.div_u"]},
    "rem": {**_SIGNED_REST, "float32": _real_rest("f32", "f32"), "float64": _real_rest("f64", "f64"),
            "index": OP["i32.rem_u"]},
    "min": {**_reals("min"), "int32": _extreme("i32", "i32.lt_s"), "uint32": _extreme("i32", "i32.lt_u"),
            "int64": _extreme("i64", "i64.lt_s"), "bool": OP["i32.and"]},
    "max": {**_reals("max"), "int32": _extreme("i32", "i32.gt_s"), "uint32": _extreme("i32", "i32.gt_u"),
            "int64": _extreme("i64", "i64.gt_s"), "bool": OP["i32.or"]},
    "neg": {**_reals("neg"), "int32": _minus("i32"), "uint32": _minus("i32"), "int64": _minus("i64")},
    "abs": {**_reals("abs"), "int32": _whole_abs("i32", 32), "uint32": b"", "int64": _whole_abs("i64", 64)},
    **{op: _reals(op) for op in ("floor", "ceil", "trunc", "nearest", "sqrt")},
    "whole": _reals("nearest"), "half": {"float32": _half},
    "power2": {"float32": _power2(MAGIC[0], "f32", "i32", 23), "float64": _power2(MAGIC[1], "f64", "i64", 52)},
    "lt": _compared("lt"), "le": _compared("le"),
    "eq": _compared("eq", signed=False), "ne": _compared("ne", signed=False),
    "isnan": {"float32": _unequal_to_itself("f32", "f32"), "float64": _unequal_to_itself("f64", "f64")},
    "and": _logic("and"), "or": _logic("or"), "xor": _logic("xor"),
    "not": {"int32": i32(-1) + OP["i32.xor"], "uint32": i32(-1) + OP["i32.xor"], "int64": i64(-1) + OP["i64.xor"],
            "bool": OP["i32.eqz"]},
    "shl": _wholes("shl"), "shr": _wholes("shr_s", "shr_u"),
    "select": dict.fromkeys(VALUE, _chosen),
    "cast": _CASTS, "bits": _BITS,
}  # fmt: skip


def _lanes(real: str = "", signed: str = "", unsigned: str = "", truth: str = "") -> dict[str, Spelling]:
    names = {"float32": real, "int32": signed, "uint32": unsigned or signed, "bool": truth}
    return {kind: OP[name] for kind, name in names.items() if name}


def _each(name: str) -> dict[str, Spelling]:
    return _lanes(f"f32x4.{name}", f"i32x4.{name}")


def _real_lanes(name: str) -> dict[str, Spelling]:
    return _lanes(f"f32x4.{name}")


def _lanes_compared(name: str) -> dict[str, Spelling]:
    return _lanes(f"f32x4.{name}", f"i32x4.{name}_s", f"i32x4.{name}_u", f"i32x4.{name}_u")


def _lanes_bits(name: str) -> dict[str, Spelling]:
    return _lanes("", f"v128.{name}", "", f"v128.{name}")


def _lanes_not_nan(f: Function, a: Sequence[bytes]) -> bytes:
    return a[0] + tee(f.spare("v128")) + get(f.spare("v128")) + OP["f32x4.ne"]


def _chosen_lanes(f: Function, a: Sequence[bytes]) -> bytes:
    return a[1] + a[2] + a[0] + OP["v128.bitselect"]


def _lanes_extreme(name: str) -> Spelling:
    """The engines' own min and max take seven instructions; these take three, whatever the NaN."""

    def code(f: Function, a: Sequence[bytes]) -> bytes:
        y = f.spare("v128")
        return a[0] + a[1] + tee(y) + OP[f"f32x4.p{name}"] + get(y) + get(y) + OP["f32x4.ne"] + OP["v128.or"]

    return code


_ONE = v128(f32(1.0)[1:])
_ZERO = v128(bytes(4))
_FROM_TRUTH: dict[str, Spelling] = {
    "bool>float32": _ONE + OP["v128.and"],
    "bool>int32": OP["i32x4.neg"],
    "bool>uint32": OP["i32x4.neg"],
}

# Types that a row lacks are computed lane by lane with the scalar spelling.
LANES: dict[str, dict[str, Spelling]] = {
    "add": _each("add"), "sub": _each("sub"), "mul": _each("mul"),
    "div": _real_lanes("div"), "rem": {"float32": _real_rest("f32x4", "v128")},
    "min": {**_lanes("", "i32x4.min_s", "i32x4.min_u", "v128.and"), "float32": _lanes_extreme("min")},
    "max": {**_lanes("", "i32x4.max_s", "i32x4.max_u", "v128.or"), "float32": _lanes_extreme("max")},
    "neg": _each("neg"), "abs": {**_lanes("f32x4.abs", "i32x4.abs"), "uint32": b""},
    **{op: _real_lanes(op) for op in ("floor", "ceil", "trunc", "nearest", "sqrt")},
    "whole": _real_lanes("nearest"), "half": {"float32": _half_lanes},
    "power2": {"float32": v128(f32(MAGIC[0])[1:]) + OP["f32x4.add"] + i32(23) + OP["i32x4.shl"]},
    "lt": _lanes_compared("lt"), "le": _lanes_compared("le"),
    "eq": _lanes("f32x4.eq", "i32x4.eq", "", "i32x4.eq"), "ne": _lanes("f32x4.ne", "i32x4.ne", "", "i32x4.ne"),
    "isnan": {"float32": _lanes_not_nan},
    "and": _lanes_bits("and"), "or": _lanes_bits("or"), "xor": _lanes_bits("xor"),
    "not": _lanes("", "v128.not", "", "v128.not"),
    "shl": _lanes("", "i32x4.shl"), "shr": _lanes("", "i32x4.shr_s", "i32x4.shr_u"),  # by one amount for all lanes
    "select": dict.fromkeys(("float32", "int32", "uint32", "bool"), _chosen_lanes),
    "cast": {
        "float32>int32": OP["i32x4.trunc_sat_f32x4_s"], "float32>uint32": OP["i32x4.trunc_sat_f32x4_u"],
        "int32>float32": OP["f32x4.convert_i32x4_s"], "uint32>float32": OP["f32x4.convert_i32x4_u"],
        "int32>uint32": b"", "uint32>int32": b"", "int32>int32": b"", **_FROM_TRUTH,
        "float32>bool": _ZERO + OP["f32x4.ne"], "int32>bool": _ZERO + OP["i32x4.ne"],
        "uint32>bool": _ZERO + OP["i32x4.ne"],
    },
    "bits": {f"{a}>{b}": b"" for a in ("float32", "int32", "uint32") for b in ("float32", "int32", "uint32") if a != b},
}  # fmt: skip


def kind_of(op: str, types: Sequence[str], result: str) -> str:
    """The key of an instruction's row: the type of its arguments (of `select`, of its values), or "from>to"."""
    plain = ["int32" if t == "index" and op not in ("div", "rem") else t for t in (*types, result)]
    if op in ("cast", "bits"):
        return f"{plain[0]}>{plain[-1]}"
    return plain[1 if op == "select" else 0]


def spell(f: Function, op: str, kind: str, args: Sequence[bytes]) -> bytes:
    """Scalar code for one instruction."""
    row = SCALAR[op][kind]
    return b"".join(args) + row if isinstance(row, bytes) else row(f, args)


def spell_lanes(f: Function, op: str, types: Sequence[str], result: str, args: Sequence[bytes]) -> bytes:
    """SIMD code for one instruction, all of whose arguments are vectors (but a shift's amount may be a single i32)."""
    kind = kind_of(op, types, result)
    row = LANES[op].get(kind)
    if row is not None:
        return b"".join(args) + row if isinstance(row, bytes) else row(f, args)
    return one_by_one(f, op, types, result, args)


def one_by_one(f: Function, op: str, types: Sequence[str], result: str, args: Sequence[bytes]) -> bytes:
    """Each lane taken out, computed with the scalar spelling, and put into the result."""
    held = [f.spare("v128", 10 + n) for n in range(len(args))]
    out = b"".join(args) + b"".join(put(v) for v in reversed(held)) + _ZERO
    real = result == "float32"
    for lane in range(4):
        parts = []
        for v, t in zip(held, types, strict=True):
            take = "f32x4.extract_lane" if t == "float32" else "i32x4.extract_lane"
            parts.append(get(v) + OP[take] + bytes([lane]) + (i32(1) + OP["i32.and"] if t == "bool" else b""))
        one = spell(f, op, kind_of(op, types, result), parts)
        if result == "bool":
            one = i32(0) + one + OP["i32.sub"]
        out += one + OP["f32x4.replace_lane" if real else "i32x4.replace_lane"] + bytes([lane])
    return out
