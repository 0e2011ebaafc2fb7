"""The byte encoder: numbers, instructions, functions and sections of a WebAssembly module.

source  WebAssembly Core Specification 3.0, chapter "Binary Format"; threads proposal for the 0xFE instructions
"""

import struct
from collections.abc import Iterable

__all__ = [
    "OP",
    "Function",
    "f32",
    "f64",
    "get",
    "i32",
    "i64",
    "memarg",
    "module",
    "put",
    "sleb",
    "tee",
    "uleb",
    "v128",
]


def uleb(n: int) -> bytes:
    """An unsigned number, seven bits a byte."""
    if n < 128:
        return _SMALL[n]
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def sleb(n: int) -> bytes:
    """A signed number, seven bits a byte."""
    out = bytearray()
    while not -64 <= n < 64:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n & 127)
    return bytes(out)


_SMALL = [bytes([n]) for n in range(128)]
_GET = [b"\x20" + uleb(n) for n in range(512)]
_PUT = [b"\x21" + uleb(n) for n in range(512)]


def get(local: int) -> bytes:
    """local.get"""
    return _GET[local] if local < 512 else b"\x20" + uleb(local)


def put(local: int) -> bytes:
    """local.set"""
    return _PUT[local] if local < 512 else b"\x21" + uleb(local)


def tee(local: int) -> bytes:
    """local.tee"""
    return b"\x22" + uleb(local)


def i32(n: int) -> bytes:
    """i32.const, of a number that may be given signed or unsigned"""
    return b"\x41" + sleb((n + 2**31) % 2**32 - 2**31)


def i64(n: int) -> bytes:
    """i64.const"""
    return b"\x42" + sleb((n + 2**63) % 2**64 - 2**63)


def f32(value: float | bytes) -> bytes:
    """f32.const, of a number or its four bytes"""
    return b"\x43" + (value if isinstance(value, bytes) else struct.pack("<f", value))


def f64(value: float | bytes) -> bytes:
    """f64.const, of a number or its eight bytes"""
    return b"\x44" + (value if isinstance(value, bytes) else struct.pack("<d", value))


def v128(lanes: bytes) -> bytes:
    """v128.const of 16 bytes, or of 4 repeated"""
    return b"\xfd\x0c" + (lanes * 4 if len(lanes) == 4 else lanes)


def memarg(offset: int = 0, align: int = 0) -> bytes:
    """What follows a load or store: alignment (a hint, as a power of two) and constant offset."""
    return _SMALL[align] + uleb(offset)


def _numbered(prefix: bytes, first: int, names: str) -> dict[str, bytes]:
    return {name: prefix + uleb(first + n) for n, name in enumerate(names.split()) if name != "-"}


def _plain() -> dict[str, bytes]:
    integer = "eqz eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"
    real = "eq ne lt gt le ge"
    whole = "clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr"
    float_ = "abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign"
    rows = [("i32", 0x45, integer), ("i64", 0x50, integer), ("f32", 0x5B, real), ("f64", 0x61, real)]
    rows += [("i32", 0x67, whole), ("i64", 0x79, whole), ("f32", 0x8B, float_), ("f64", 0x99, float_)]
    table: dict[str, bytes] = {}
    for kind, first, names in rows:
        for n, name in enumerate(names.split()):
            table[f"{kind}.{name}"] = bytes([first + n])
    return table


OP: dict[str, bytes] = {
    "unreachable": b"\x00", "block": b"\x02\x40", "loop": b"\x03\x40", "if": b"\x04\x40",
    "else": b"\x05", "end": b"\x0b",
    "br": b"\x0c", "br_if": b"\x0d", "return": b"\x0f", "call": b"\x10", "drop": b"\x1a", "select": b"\x1b",
    "if v128": b"\x04\x7b",
    "i32.wrap_i64": b"\xa7", "i64.extend_i32_s": b"\xac", "i64.extend_i32_u": b"\xad",
    "i32.load": b"\x28", "i64.load": b"\x29", "f32.load": b"\x2a", "f64.load": b"\x2b", "i32.load8_s": b"\x2c",
    "i32.load8_u": b"\x2d", "i32.load16_u": b"\x2f", "i32.store": b"\x36", "i64.store": b"\x37", "f32.store": b"\x38",
    "f64.store": b"\x39", "i32.store8": b"\x3a", "i32.store16": b"\x3b",
    **_plain(),
    **_numbered(b"", 0xB2, "f32.convert_i32_s f32.convert_i32_u f32.convert_i64_s - f32.demote_f64"),
    **_numbered(b"", 0xB7, "f64.convert_i32_s f64.convert_i32_u f64.convert_i64_s - f64.promote_f32"),
    **_numbered(b"", 0xBC, "i32.reinterpret_f32 i64.reinterpret_f64 f32.reinterpret_i32 f64.reinterpret_i64"),
    **_numbered(b"\xfc", 0, "i32.trunc_sat_f32_s i32.trunc_sat_f32_u i32.trunc_sat_f64_s i32.trunc_sat_f64_u"),
    **_numbered(b"\xfc", 4, "i64.trunc_sat_f32_s - i64.trunc_sat_f64_s"), "memory.fill": b"\xfc\x0b\0",
    "memory.copy": b"\xfc\x0a\0\0",
    **_numbered(b"\xfd", 0, "v128.load v128.load8x8_s - v128.load16x4_s v128.load16x4_u"),
    **_numbered(b"\xfd", 9, "v128.load32_splat - v128.store - i8x16.shuffle"),
    **_numbered(b"\xfd", 17, "i32x4.splat - f32x4.splat"),
    **_numbered(b"\xfd", 27, "i32x4.extract_lane i32x4.replace_lane - - f32x4.extract_lane f32x4.replace_lane"),
    **_numbered(b"\xfd", 55, "i32x4.eq i32x4.ne i32x4.lt_s i32x4.lt_u"),
    **_numbered(b"\xfd", 59, "i32x4.gt_s i32x4.gt_u i32x4.le_s i32x4.le_u i32x4.ge_s i32x4.ge_u"),
    **_numbered(b"\xfd", 65, "f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge"),
    **_numbered(b"\xfd", 77, "v128.not v128.and v128.andnot v128.or v128.xor v128.bitselect v128.any_true"),
    **_numbered(b"\xfd", 84, "v128.load8_lane v128.load16_lane v128.load32_lane"),
    **_numbered(b"\xfd", 90, "v128.store32_lane v128.store64_lane"),
    **_numbered(b"\xfd", 92, "v128.load32_zero v128.load64_zero"),
    **_numbered(b"\xfd", 101, "i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u"),
    **_numbered(b"\xfd", 103, "f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest"),
    **_numbered(b"\xfd", 133, "i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u"),
    **_numbered(b"\xfd", 135, "i16x8.extend_low_i8x16_s - i16x8.extend_low_i8x16_u"),
    **_numbered(b"\xfd", 139, "i16x8.shl i16x8.shr_s"),
    **_numbered(b"\xfd", 160, "i32x4.abs i32x4.neg - i32x4.all_true"),
    **_numbered(b"\xfd", 167, "i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u"),
    **_numbered(b"\xfd", 171, "i32x4.shl i32x4.shr_s i32x4.shr_u i32x4.add - - i32x4.sub - - - i32x4.mul"),
    **_numbered(b"\xfd", 182, "i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u"),
    **_numbered(b"\xfd", 224, "f32x4.abs f32x4.neg - f32x4.sqrt"),
    **_numbered(b"\xfd", 228, "f32x4.add f32x4.sub f32x4.mul f32x4.div - - f32x4.pmin f32x4.pmax"),
    **_numbered(b"\xfd", 248, "i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u"),
    **_numbered(b"\xfd", 250, "f32x4.convert_i32x4_s f32x4.convert_i32x4_u"),
    **_numbered(b"\xfd", 0x105, "f32x4.relaxed_madd f32x4.relaxed_nmadd - - - - i32x4.relaxed_laneselect"),
    **_numbered(b"\xfd", 109, "i8x16.shr_u"),
    **_numbered(b"\xfd", 0x113, "i32x4.relaxed_dot_i8x16_i7x16_add_s"),
    **_numbered(b"\xfe", 0, "memory.atomic.notify memory.atomic.wait32"),
    "i32.atomic.load": b"\xfe\x10", "i32.atomic.store": b"\xfe\x17", "i32.atomic.rmw.add": b"\xfe\x1e",
}  # fmt: skip

KINDS = {"i32": b"\x7f", "i64": b"\x7e", "f32": b"\x7d", "f64": b"\x7c", "v128": b"\x7b"}


class Function:
    """A function being written: its parameters (all i32) and locals. Code is made elsewhere and given to `body`."""

    def __init__(self, parameters: int) -> None:
        self.parameters = parameters
        self.kinds: list[str] = []
        self._spare: dict[str, int] = {}
        self._constants: dict[bytes, int] = {}

    def local(self, kind: str) -> int:
        """A new local of this type."""
        self.kinds.append(kind)
        return self.parameters + len(self.kinds) - 1

    def spare(self, kind: str, n: int = 0) -> int:
        """A local for use inside one instruction's spelling; the same each time."""
        key = f"{kind}{n}"
        if key not in self._spare:
            self._spare[key] = self.local(kind)
        return self._spare[key]

    def constant(self, lanes: bytes) -> bytes:
        """A v128 constant, set once: V8 takes five instructions to make one wherever it stands."""
        if lanes not in self._constants:
            self._constants[lanes] = self.local("v128")
        return get(self._constants[lanes])

    def body(self, code: bytes) -> bytes:
        """The function's entry in the code section."""
        code = b"".join(v128(lanes) + put(at) for lanes, at in self._constants.items()) + code
        runs: list[tuple[str, int]] = []
        for kind in self.kinds:
            if runs and runs[-1][0] == kind:
                runs[-1] = (kind, runs[-1][1] + 1)
            else:
                runs.append((kind, 1))
        head = uleb(len(runs)) + b"".join(uleb(n) + KINDS[kind] for kind, n in runs)
        return _sized(head + code + OP["end"])


def _sized(data: bytes) -> bytes:
    return uleb(len(data)) + data


def _section(number: int, items: list[bytes]) -> bytes:
    return bytes([number]) + _sized(uleb(len(items)) + b"".join(items))


def module(functions: Iterable[tuple[str, int, int, bytes]]) -> tuple[bytes, int]:
    """The module that imports env.memory (shared) and has these functions, and the position of the memory's flags byte.

    functions  name to export it by ("" if it is not exported), number of i32 parameters and results, body
    """
    functions = list(functions)
    kinds = sorted({(n, m) for _, n, m, _ in functions})
    types = [b"\x60" + uleb(n) + KINDS["i32"] * n + uleb(m) + KINDS["i32"] * m for n, m in kinds]
    head = b"\0asm\x01\0\0\0" + _section(1, types)
    limits = b"\x03\x01" + uleb(65536)
    head += _section(2, [b"\x03env\x06memory\x02" + limits])
    exports = [_sized(row[0].encode()) + b"\x00" + uleb(n) for n, row in enumerate(functions) if row[0]]
    tail = _section(3, [uleb(kinds.index((n, m))) for _, n, m, _ in functions]) + _section(7, exports)
    return head + tail + _section(10, [row[-1] for row in functions]), len(head) - len(limits)
