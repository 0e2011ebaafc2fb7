"""Contractions of bytes: four products and their sum in one instruction, exact on every engine.

`i32x4.relaxed_dot_i8x16_i7x16_add_s` multiplies signed bytes w with bytes x of 7 bits. What it does with an eighth bit
of x, WebAssembly leaves open: processors take x as signed (ARM), or as unsigned (x86), and of the latter some have
sums of two products in 16 bits, where they may saturate. The function asks the processor that it runs on, once:

    unsigned, without saturation   x - 128 is computed as x with its sign turned: Σ w (x + 128) - 128 Σ w
    signed                         as for signed x it is
    else                           Σ w (x & 127) ± 128 Σ w (x >> 7), each with 7 bits of x

Σ w is computed once for each panel. The panels are of bytes: 8 columns of four steps each.
"""

from dataclasses import replace
from struct import pack

from .kernel import Kernel
from .wasm_bytes import OP, Function, get, i32, put, v128
from .wasm_contraction import Tiling
from .wasm_rounding import begun
from .wasm_tile import Tile, Tiles

__all__ = ["DOT", "ONES", "SEVEN", "Dots", "Eighth"]

DOT = OP["i32x4.relaxed_dot_i8x16_i7x16_add_s"]
SIGN = v128(b"\x80" * 4)
SEVEN = v128(b"\x7f" * 4)
ONES = v128(b"\x01" * 4)


def _lane(code: bytes) -> bytes:
    return code + OP["i32x4.extract_lane"] + b"\0"


def _asked(w: int, answer: int) -> bytes:
    """Whether four products of w with a byte of eight ones give this sum."""
    dot = v128(pack("<b", w) * 4) + v128(b"\xff" * 4) + v128(bytes(4)) + DOT
    return _lane(dot) + i32(answer) + OP["i32.eq"]


class Eighth:
    """What a function knows of the eighth bit of x, once it has asked.

    signed  whether x is int8, and not uint8
    flip    a local: turns the sign of x, or nothing
    weight  a local: what Σ w counts then
    turned  a local: whether `flip` does anything
    fast    a local: whether x turned so is exact
    """

    def __init__(self, f: Function, signed: bool) -> None:
        self.signed = signed
        self.flip, self.weight = f.local("v128"), f.local("v128")
        self.fast, self.turned = f.local("i32"), f.local("i32")

    def asked(self) -> bytes:
        """Code that sets the locals."""
        unsigned = _asked(127, 4 * 127 * 255) + _asked(-128, -4 * 128 * 255) + OP["i32.and"]
        signed = _asked(127, -4 * 127) + _asked(-128, 4 * 128) + OP["i32.and"]
        which, offset = (unsigned, -128) if self.signed else (signed, 128)
        code = which + put(self.turned) + unsigned + signed + OP["i32.or"] + put(self.fast)
        for local, yes in ((self.flip, SIGN), (self.weight, v128(pack("<i", offset)))):
            code += yes + v128(bytes(4)) + get(self.turned) + OP["select"] + put(local)
        return code


class Dots(Tiles):
    """The function of a kernel whose left factor is of int8 or uint8, and whose right one is of int8."""

    def __init__(self, kernel: Kernel, plan: Tiling) -> None:
        self.start, value = None, plan.store.value
        if plan.columns % 4 == 0:
            self.start, value = begun(value, plan.total, frozenset([plan.panel, plan.lane]))
        super().__init__(kernel, replace(plan, store=replace(plan.store, value=value)))
        self.count([] if self.start is None else [self.start])
        self.eighth = Eighth(self.f, kernel.arguments[plan.a.argument].name == "int8")
        self.weights = [self.f.local("v128") for _ in range(2)]  # Σ w of the panel's columns, times that
        self.seven: bytes = b""  # what the slow way does to the bytes of x; nothing: the fast ways
        self.flips = False  # whether the signs of x are turned

    def parts(self) -> None:
        """The range, in the way that the processor computes exactly."""
        self.emit(self.eighth.asked())
        straight = self.written_apart(super().parts)
        self.flips = True
        turned = self.written_apart(super().parts)
        self.seven, self.pace = SEVEN, 0
        slow = self.written_apart(super().parts)
        fast = get(self.eighth.turned) + OP["if"] + turned + OP["else"] + straight + OP["end"]
        self.emit(get(self.eighth.fast) + OP["if"] + fast + OP["else"] + slow + OP["end"])

    def rows(self, block: int, width: int) -> None:
        vectors = self.plan.vectors(width)
        weights = self.weights[: len(vectors)]
        self.emit(b"".join(v128(bytes(4)) + put(w) for w in weights))
        if self.flips and not self.seven:
            self.point(self.right, self.plan.b)
            self.over(0, Tile([], vectors, [weights]))
            for w in weights:
                self.emit(get(w) + get(self.eighth.weight) + OP["i32x4.mul"] + put(w))
        if self.start is not None:
            self._begin(weights, vectors)
        super().rows(block, width)

    def _begin(self, weights: list[int], vectors: list[tuple[int, int]]) -> None:
        """Add what the sums begin with."""
        assert self.start is not None
        self.enter(self.plan.lane, self.zero)
        self.lane = self.plan.lane
        for w, (column, _) in zip(weights, vectors, strict=True):
            self.shift = {self.plan.lane: column}
            code = self.value(self.start, "v")
            self.emit(get(w) + code + OP["i32x4.add"] + put(w))
        self.lane, self.shift = None, {}
        self.emit(bytes(self.leave().code))

    def step(self, tile: Tile, n: int, one: int) -> None:
        if tile.left:
            super().step(tile, n, one)
            return
        for v, at in zip(self.vectors, tile.sums[0], strict=False):
            self.emit(get(v) + ONES + get(at) + DOT + put(at))

    def summed(self, tile: Tile) -> None:
        if not self.seven:
            for c, copy in enumerate(tile.sums):
                for n, s in enumerate(copy):
                    start = v128(bytes(4)) if c else get(self.weights[n % len(tile.vectors)])
                    self.emit(start + put(s))
            self.over(0, tile)
            self.join(tile)
            return
        self.seven = SEVEN + OP["v128.and"]
        super().summed(tile)
        low = [self.f.local("v128") for _ in tile.sums[0]]
        self.emit(b"".join(get(s) + put(t) for s, t in zip(tile.sums[0], low, strict=True)))
        self.seven = i32(7) + OP["i8x16.shr_u"]
        self.left(len(tile.left))
        self.point(self.right, self.plan.b)
        super().summed(tile)
        for s, t in zip(tile.sums[0], low, strict=True):
            high = get(s) + i32(7) + OP["i32x4.shl"]
            self.emit(get(t) + high + OP["i32x4.sub" if self.eighth.signed else "i32x4.add"] + put(s))
        for n, s in enumerate(tile.sums[0] if self.start is not None else ()):
            self.emit(get(s) + get(self.weights[n % len(tile.vectors)]) + OP["i32x4.add"] + put(s))

    def repeated(self, address: bytes, offset: int) -> bytes:
        return super().repeated(address, offset) + (
            self.seven or (get(self.eighth.flip) + OP["v128.xor"] if self.flips else b"")
        )

    def added(self, a: bytes, b: bytes, total: bytes) -> bytes:
        return b + a + total + DOT
