"""How elements of each storage type become numbers in registers and go back: alone, and four at a time.

Loads widen (float16 to float32, small integers to 32 bits, truth values to 0/1 or lane masks) and stores narrow:
float16 rounds to nearest even, small integers keep their low bits. Nothing here depends on floating-point flags, and no
subnormal float32 appears on the way (but for tiny weights), because processors may take a hundred cycles for one.
"""

from collections.abc import Sequence
from struct import pack

from .wasm_bytes import OP, Function, f32, get, i32, memarg, put, tee, v128

__all__ = [
    "BYTES",
    "load_lanes",
    "load_scalar",
    "load_weights",
    "narrow_lanes",
    "narrow_scalar",
    "pick_lanes",
    "store_bytes",
    "store_lanes",
    "store_scalar",
    "widen_lanes",
    "widen_scalar",
]

BYTES = ("int8", "uint8")
LOAD = {
    "bool": "i32.load8_u", "int8": "i32.load8_s", "uint8": "i32.load8_u", "int32": "i32.load", "uint32": "i32.load",
    "int64": "i64.load", "float16": "i32.load16_u", "float32": "f32.load", "float64": "f64.load",
}  # fmt: skip
STORE = {
    "bool": "i32.store8", "int8": "i32.store8", "uint8": "i32.store8", "int32": "i32.store", "uint32": "i32.store",
    "int64": "i64.store", "float16": "i32.store16", "float32": "f32.store", "float64": "f64.store",
}  # fmt: skip
ALIGN = {"bool": 0, "int8": 0, "uint8": 0, "float16": 1, "int64": 3, "float64": 3}  # the others: 2


def load_scalar(f: Function, dtype: str, address: bytes, offset: int) -> bytes:
    """The widened element at an address."""
    return widen_scalar(f, dtype, address + OP[LOAD[dtype]] + memarg(offset, ALIGN.get(dtype, 2)))


def store_scalar(f: Function, dtype: str, address: bytes, offset: int, value: bytes) -> bytes:
    """The narrowed value, put at an address."""
    return address + narrow_scalar(f, dtype, value) + OP[STORE[dtype]] + memarg(offset, ALIGN.get(dtype, 2))


def widen_scalar(f: Function, dtype: str, raw: bytes) -> bytes:
    """What the loaded bits of an element stand for."""
    if dtype == "bool":
        return raw + i32(0) + OP["i32.ne"]
    if dtype != "float16":
        return raw
    h, m = f.spare("i32", 5), f.spare("i32", 6)
    big = get(m) + i32(0x0F800000) + OP["i32.ge_u"] + i32(0x38000000) + OP["i32.mul"]
    normal = get(m) + i32(0x38000000) + OP["i32.add"] + big + OP["i32.add"]
    tiny = get(m) + i32(0x38800000) + OP["i32.add"] + OP["f32.reinterpret_i32"] + _f32_bits(0x38800000) + OP["f32.sub"]
    chosen = tiny + OP["i32.reinterpret_f32"] + normal + get(m) + i32(0x800000) + OP["i32.lt_u"] + OP["select"]
    sign = get(h) + i32(0x8000) + OP["i32.and"] + i32(16) + OP["i32.shl"]
    start = raw + tee(h) + i32(0x7FFF) + OP["i32.and"] + i32(13) + OP["i32.shl"] + put(m)
    return start + chosen + sign + OP["i32.or"] + OP["f32.reinterpret_i32"]


def _f32_bits(bits: int) -> bytes:
    return f32(pack("<I", bits))


def narrow_scalar(f: Function, dtype: str, value: bytes) -> bytes:
    """The bits to store for a value; the store instruction drops the high bits of integers."""
    if dtype != "float16":
        return value
    x, a = f.spare("i32", 5), f.spare("i32", 6)
    start = value + OP["i32.reinterpret_f32"] + tee(x) + i32(0x7FFFFFFF) + OP["i32.and"] + put(a)
    odd = get(a) + i32(13) + OP["i32.shr_u"] + i32(1) + OP["i32.and"]
    normal = get(a) + i32(0xC8000FFF) + OP["i32.add"] + odd + OP["i32.add"] + i32(13) + OP["i32.shr_u"]
    tiny = get(a) + OP["f32.reinterpret_i32"] + f32(0.5) + OP["f32.add"] + OP["i32.reinterpret_f32"]
    tiny += i32(0x3F000000) + OP["i32.sub"]
    huge = i32(0x7E00) + i32(0x7C00) + get(a) + i32(0x7F800000) + OP["i32.gt_u"] + OP["select"]
    small = tiny + normal + get(a) + i32(0x38800000) + OP["i32.lt_u"] + OP["select"]
    chosen = huge + small + get(a) + i32(0x47800000) + OP["i32.ge_u"] + OP["select"]
    return start + chosen + get(x) + i32(16) + OP["i32.shr_u"] + i32(0x8000) + OP["i32.and"] + OP["i32.or"]


def load_lanes(f: Function, dtype: str, address: bytes, offset: int) -> bytes:
    """Four neighbours, widened."""
    if dtype in ("float32", "int32", "uint32"):
        return address + OP["v128.load"] + memarg(offset, 2)
    if dtype == "float16":
        return widen_lanes(f, dtype, address + OP["v128.load16x4_u"] + memarg(offset, 1))
    sign = "s" if dtype == "int8" else "u"
    raw = address + OP["v128.load32_zero"] + memarg(offset)
    raw += OP[f"i16x8.extend_low_i8x16_{sign}"] + OP[f"i32x4.extend_low_i16x8_{sign}"]
    return widen_lanes(f, "bool", raw) if dtype == "bool" else raw


def load_weights(f: Function, address: bytes, offset: int) -> bytes:
    """Four neighbours of float16, widened in half the instructions; those below 6.1e-5 take ten times as long.

    Moved to their places in a float32, exponent and fraction stand for 2⁻¹¹² of the number. A product of a subnormal
    float32 is slow on many processors: weights seldom are so small, but what is computed often is.
    """
    h = f.spare("v128", 21)
    start = address + OP["v128.load16x4_s"] + memarg(offset, 1) + i32(13) + OP["i32x4.shl"] + tee(h)
    number = start + _each(f, 0x8FFFE000) + OP["v128.and"] + _each(f, 0x77800000) + OP["f32x4.mul"]
    special = get(h) + _each(f, 0x0F800000) + OP["v128.and"] + _each(f, 0x0F800000) + OP["i32x4.eq"]
    return number + special + _each(f, 0x7F800000) + OP["v128.and"] + OP["v128.or"]


def pick_lanes(f: Function, dtype: str, places: list[tuple[bytes, int]]) -> bytes:
    """Four elements from anywhere, widened: address and offset of each."""
    width, align = {1: (8, 0), 2: (16, 1), 4: (32, 2)}[_SIZE[dtype]]
    out = f.spare("v128", 20)
    code = v128(bytes(4)) + put(out)
    for lane, (address, offset) in enumerate(places):
        op = OP[f"v128.load{width}_lane"]
        code += address + get(out) + op + memarg(offset, align) + bytes([lane * 32 // width]) + put(out)
    code += get(out)
    if dtype == "int8":
        return code + i32(24) + OP["i32x4.shl"] + i32(24) + OP["i32x4.shr_s"]
    return widen_lanes(f, dtype, code)


_SIZE = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "float32": 4, "int32": 4, "uint32": 4}


def widen_lanes(f: Function, dtype: str, raw: bytes) -> bytes:
    """What four elements stand for, whose bits lie zero-extended in 32-bit lanes."""
    if dtype == "bool":
        return raw + v128(bytes(4)) + OP["i32x4.ne"]
    if dtype != "float16":
        return raw
    h, m = f.spare("v128", 21), f.spare("v128", 22)
    start = raw + tee(h) + _each(f, 0x7FFF) + OP["v128.and"] + i32(13) + OP["i32x4.shl"] + put(m)
    big = get(m) + _each(f, 0x0F7FFFFF) + OP["i32x4.gt_s"] + _each(f, 0x38000000) + OP["v128.and"]
    normal = get(m) + _each(f, 0x38000000) + OP["i32x4.add"] + big + OP["i32x4.add"]
    tiny = get(m) + _each(f, 0x38800000) + OP["i32x4.add"] + _each(f, 0x38800000) + OP["f32x4.sub"]
    chosen = tiny + normal + _each(f, 0x800000) + get(m) + OP["i32x4.gt_s"] + OP["v128.bitselect"]
    sign = get(h) + _each(f, 0x8000) + OP["v128.and"] + i32(16) + OP["i32x4.shl"]
    return start + chosen + sign + OP["v128.or"]


def _each(f: Function, bits: int) -> bytes:
    return f.constant(pack("<I", bits))


def narrow_lanes(f: Function, dtype: str, value: bytes) -> bytes:
    """The bits to store, in the low bits of 32-bit lanes, the others 0."""
    if dtype == "bool":
        return value + _each(f, 1) + OP["v128.and"]
    if dtype in ("int8", "uint8"):
        return value + _each(f, 255) + OP["v128.and"]
    if dtype != "float16":
        return value
    x, a = f.spare("v128", 21), f.spare("v128", 22)
    start = value + tee(x) + _each(f, 0x7FFFFFFF) + OP["v128.and"] + put(a)
    odd = get(a) + i32(13) + OP["i32x4.shr_u"] + _each(f, 1) + OP["v128.and"]
    normal = get(a) + _each(f, 0xC8000FFF) + OP["i32x4.add"] + odd + OP["i32x4.add"] + i32(13) + OP["i32x4.shr_u"]
    tiny = get(a) + v128(f32(0.5)[1:]) + OP["f32x4.add"] + _each(f, 0x3F000000) + OP["i32x4.sub"]
    huge = _each(f, 0x7E00) + _each(f, 0x7C00) + get(a) + _each(f, 0x7F800000) + OP["i32x4.gt_s"] + OP["v128.bitselect"]
    small = tiny + normal + get(a) + _each(f, 0x38800000) + OP["i32x4.lt_s"] + OP["v128.bitselect"]
    chosen = huge + small + get(a) + _each(f, 0x477FFFFF) + OP["i32x4.gt_s"] + OP["v128.bitselect"]
    return start + chosen + get(x) + i32(16) + OP["i32x4.shr_u"] + _each(f, 0x8000) + OP["v128.and"] + OP["v128.or"]


def store_lanes(f: Function, dtype: str, address: bytes, offset: int, value: bytes) -> bytes:
    """Four values narrowed and put side by side."""
    code = address + narrow_lanes(f, dtype, value)
    if dtype in ("float32", "int32", "uint32"):
        return code + OP["v128.store"] + memarg(offset, 2)
    half = f.spare("v128", 21)
    code += tee(half) + get(half) + OP["i16x8.narrow_i32x4_u"]
    if dtype == "float16":
        return code + OP["v128.store64_lane"] + memarg(offset, 1) + b"\0"
    return code + tee(half) + get(half) + OP["i8x16.narrow_i16x8_u"] + OP["v128.store32_lane"] + memarg(offset) + b"\0"


def store_bytes(f: Function, address: bytes, offset: int, values: Sequence[bytes], saturate: str = "") -> bytes:
    """Eight values, of which these are two vectors, or sixteen, put side by side as bytes.

    saturate  the dtype into whose range they are brought; "": of each is stored the last byte
    """
    if saturate:
        words = [a + b + OP["i16x8.narrow_i32x4_s"] for a, b in zip(values[::2], values[1::2], strict=True)]
    else:
        halves = [narrow_lanes(f, "int8", value) for value in values]
        words = [a + b + OP["i16x8.narrow_i32x4_u"] for a, b in zip(halves[::2], halves[1::2], strict=True)]
    narrow = OP["i8x16.narrow_i16x8_s" if saturate == "int8" else "i8x16.narrow_i16x8_u"]
    if len(words) == 2:
        return address + words[0] + words[1] + narrow + OP["v128.store"] + memarg(offset)
    half = f.spare("v128", 21)
    return address + words[0] + tee(half) + get(half) + narrow + OP["v128.store64_lane"] + memarg(offset) + b"\0"
