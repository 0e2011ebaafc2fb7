"""Values: K expressions as WebAssembly code inside a nest of loops.

Each expression is computed in the outermost loop that binds all its variables, at most once there, and kept in a local
unless it is used just once on the spot. What depends on the lane is a vector, the rest a single value, copied to all
lanes where a vector needs it.
"""

from collections.abc import Iterable, Sequence
from math import isnan
from struct import pack

from ..dtype import DType
from ..scalar import K, const_value, walk
from .kernel import Store, vary
from .wasm import VALUE, kind_of, one_by_one, spell, spell_lanes
from .wasm_bytes import OP, get, i32, i64, memarg, put, tee, v128
from .wasm_rounding import last_byte, saturated
from .wasm_schedule import extent
from .wasm_scope import Key, Scope, Scopes
from .wasm_storage import BYTES, load_lanes, load_scalar, pick_lanes, store_bytes, store_lanes, store_scalar

__all__ = ["BOUND", "REVERSED", "Values"]

REVERSED = OP["i8x16.shuffle"] + bytes([12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3])
# the lower and the upper halves of two vectors: lane by lane in turn, and as they are
INTERLEAVED = [
    OP["i8x16.shuffle"] + bytes(4 * n + m for n in lanes for m in range(4)) for lanes in ((0, 4, 1, 5), (2, 6, 3, 7))
]
PAIRED = [OP["i8x16.shuffle"] + bytes(range(8 * n, 8 * n + 8)) + bytes(range(8 * n + 16, 8 * n + 24)) for n in (0, 1)]
FUSED = {"add": OP["f32x4.relaxed_madd"], "sub": OP["f32x4.relaxed_nmadd"]}
BOUND = {"min": OP["f32x4.pmin"], "max": OP["f32x4.pmax"]}
CONSTANT = {"float32": b"\x43", "float64": b"\x44"}
SPLAT = {"float32": OP["f32x4.splat"], "bool": OP["i32x4.splat"] + OP["i32x4.neg"]}


class Values(Scopes):
    """The code of expressions, written into the scopes of one function."""

    def __init__(self, arguments: Sequence[DType], relaxed: bool) -> None:
        super().__init__(arguments)
        self.relaxed = relaxed
        self.copies: dict[K, int] = {}  # elements of each tiled axis that are now written side by side
        self.share = False  # whether to look for loads of one place by several expressions
        self.firm: set[K] = set()  # bounds that take the place of NaN, too
        self._counts: dict[K, int] = {}
        self._counted: set[K] = set()
        self._plans: dict[tuple[K, K | None], str] = {}

    # Expressions

    def count(self, roots: list[K]) -> None:
        """Note how often each expression is used, for those that will be asked for."""
        counts = self._counts
        for node in walk(roots):
            if node in self._counted:
                continue
            self._counted.add(node)
            moved = self.moved(node)
            for a in node.args:
                # copies of the user that differ in a shift share what does not depend on it
                same = self.moved(a) == moved or node.op == "reduce"
                counts[a] = counts.get(a, 0) + (1 if same else 2)

    def value(self, root: K, mode: str = "") -> bytes:
        """Code that pushes an expression's value: mode "s" for a single value, "v" for four lanes, "" as it is."""
        mode = mode or ("v" if self.lane in root.free else "s")
        known, key = self._known, self.key
        last = (key(root), mode)
        stack = [(root, mode, last, False)]
        while stack:
            node, mode, slot, ready = stack.pop()
            if slot in known:
                continue
            if not ready:
                operands = [(a, m, (key(a), m), False) for a, m in self._operands(node, mode)]
                missing = [operand for operand in operands if operand[2] not in known]
                if missing:
                    stack.append((node, mode, slot, True))
                    stack += reversed(missing)
                    continue
            self._define(node, mode, slot)
        return known[last]

    def hold(self, node: K) -> bytes:
        """As `value`, computed at once."""
        code = self.value(node)
        local = self.f.local("v128" if self.is_vector(node) else VALUE[node.type])
        self.emit(code + put(local))
        return get(local)

    def store(self, argument: int, index: K, value: bytes) -> None:
        """argument[index] = value, for one element or four."""
        dtype = self.arguments[argument].name
        if self.lane is not None and self.lane in index.free and (self._vectors(index) or vary(index, self.lane) != 1):
            self._scatter(argument, index, value)
            return
        place = store_lanes if self.is_vector(index) else store_scalar
        for term in self._nested(index):
            self.value(term, "s")
        address, offset = self.address(argument, index)
        self.emit(place(self.f, dtype, address, offset, value))

    def stored_value(self, store: Store, together: bool) -> tuple[K, str]:
        """What is computed for a store: in bytes, less than the value; and what `store_together` then brings it into.

        together  whether all of it is stored by `store_together`
        """
        dtype = self.arguments[store.argument].name
        if dtype not in BYTES:
            return store.value, ""
        found = saturated(store.value, 127 if dtype == "int8" else 255) if together else None
        if found is None:
            return last_byte(store.value), ""
        self.firm.add(found[1])
        return found[0], dtype

    def store_together(self, store: Store, values: Sequence[bytes], saturate: str) -> None:
        """Bytes for eight or sixteen lanes, four in each value."""
        for term in self._nested(store.index):
            self.value(term, "s")
        address, offset = self.address(store.argument, store.index)
        self.emit(store_bytes(self.f, address, offset, values, saturate))

    def _scatter(self, argument: int, index: K, value: bytes) -> None:
        """Four elements stored one by one."""
        dtype = self.arguments[argument]
        places, held = self.f.spare("v128", 24), self.f.spare("v128", 25)
        self.emit(self.value(index, "v") + put(places) + value + put(held))
        take = "f32x4.extract_lane" if dtype.kind == "f" else "i32x4.extract_lane"
        for n in range(4):
            at = get(places) + OP["i32x4.extract_lane"] + bytes([n]) + i32(dtype.itemsize) + OP["i32.mul"]
            one = get(held) + OP[take] + bytes([n]) + (i32(1) + OP["i32.and"] if dtype.kind == "b" else b"")
            self.emit(store_scalar(self.f, dtype.name, get(argument) + at + OP["i32.add"], 0, one))

    def touch(self, load: K) -> None:
        """Load an element, so that it is near when it is needed."""
        address, offset = self.address(load.value, load.args[0])
        self.emit(address + OP["i32.load8_u"] + memarg(offset, 0) + OP["drop"])

    def set(self, node: K, scope: int, code: bytes) -> None:
        """From now on `code` pushes the value of an expression (a reduction, kept in a local of an outer scope)."""
        slot = (self.key(node), "v" if self.is_vector(node) else "s")
        self._known[slot] = code
        self.chain[scope].slots.append(slot)

    def reduce(self, node: K) -> None:
        """Write the loops of a reduction and `set` its value."""
        raise NotImplementedError

    def fused(self, node: K, mode: str) -> tuple[K, K, K] | None:
        """(a, b, c) if an expression is computed as a fused a b + c, or for a difference as c - a b."""
        if node.op not in FUSED or not self.relaxed or mode != "v" or node.type != "float32":
            return None
        first, second = node.args
        for product, other in ((second, first), (first, second)) if node.op == "add" else ((second, first),):
            if product.op == "mul" and self.is_vector(product) and self._counts.get(product, 1) < 2:
                return product.args[0], product.args[1], other
        return None

    def _operands(self, node: K, mode: str) -> Iterable[tuple[K, str]]:
        """What must be known before an expression can be written."""
        op = node.op
        if op == "const":
            return ()
        if mode == "v" and self.lane not in node.free:
            return () if self._splatted(node) else ((node, "s"),)
        if op in ("var", "reduce"):
            return ()
        if op == "load":
            return self._load_operands(node, mode)
        if op == "linear":
            return [(t, "v" if self.lane in t.free else "s") for t in self._nested(node)]
        if mode == "s":
            return [(a, "s") for a in node.args]
        fused = self.fused(node, mode)
        if fused:
            return [(a, "v") for a in fused]
        if op in ("shl", "shr") and not self.is_vector(node.args[1]):
            return ((node.args[0], "v"), (node.args[1], "s"))
        return [(a, "v") for a in node.args]

    def _splatted(self, node: K) -> bool:
        """Whether an expression is loaded straight into all lanes."""
        if node.op != "load" or len(node.args) == 2 or (self.key(node), "s") in self._known:
            return False
        return self._stored(node) in ("float32", "int32", "uint32") and not self._nested(node.args[0])

    def _stored(self, load: K) -> str:
        return self.arguments[load.value].name

    def _define(self, node: K, mode: str, slot: Key) -> None:
        if node.op == "reduce" and (mode == "s" or self.is_vector(node)):
            self.reduce(node)
            return
        if node.op == "load" and mode == "v" and self.is_vector(node) and self._transpose(node):
            return
        home = self.home(node)
        scope = self.chain[home]
        scope.slots.append(slot)
        place = self._place(node, mode, home) if self.share and node.op == "load" else None
        if place in self._known:
            self._known[slot] = self._known[place]
            return
        code = self._spelled(node, mode)
        plain = node.op == "var" and mode == "s" and not self.shift.get(node)
        once = scope is self.chain[-1] and self._counts.get(node, 1) < 2 and node.type != "index" and not place
        if not (plain or once or (node.op == "const" and mode == "s")):
            local = self.f.local("v128" if mode == "v" else VALUE[node.type])
            scope.code += code + put(local)
            code = get(local)
        self._known[slot] = code
        if place:
            scope.slots.append(place)
            self._known[place] = code

    def _place(self, load: K, mode: str, home: int) -> Key:
        """What tells apart the places in memory that plain loads read; None for other loads."""
        if len(load.args) == 2 or (self.is_vector(load) and self._plan(load) != "near"):
            return None
        wide = mode if self.is_vector(load) or self._splatted(load) or mode == "s" else "splat"
        return ("place", home, wide, self.is_vector(load), load.value, *self.address(load.value, load.args[0]))

    def _spelled(self, node: K, mode: str) -> bytes:
        op = node.op
        vector = self.lane in node.free
        if op == "const":
            return _constant(node, mode)
        if mode == "v" and not vector:
            if self._splatted(node):
                address, offset = self.address(node.value, node.args[0])
                return address + OP["v128.load32_splat"] + _offset(offset)
            return self.known(node, "s") + SPLAT.get(node.type, OP["i32x4.splat"])
        if op in ("var", "linear"):
            return self._index_lanes(node) if vector else self._sum(node)
        if op == "load":
            return self._load_vector(node) if vector else self._load_single(node)
        types = [a.type for a in node.args]
        if mode == "s":
            return spell(self.f, op, kind_of(op, types, node.type), [self.known(a, "s") for a in node.args])
        fused = self.fused(node, mode)
        if fused:
            return b"".join(self.known(a, "v") for a in fused) + FUSED[op]
        if op in BOUND and node.type == "float32" and any(map(_is_number, node.args)):
            x, bound = node.args if _is_number(node.args[1]) else node.args[::-1]
            if node in self.firm:
                return self.known(bound, "v") + self.known(x, "v") + BOUND[op]
            return self.known(x, "v") + self.known(bound, "v") + BOUND[op]  # which gives x where it is NaN
        if op == "select" and self.relaxed:  # exact, since all bits of a condition's lane are equal
            condition, *choices = (self.known(a, "v") for a in node.args)
            return b"".join(choices) + condition + OP["i32x4.relaxed_laneselect"]
        args = [self.known(a, m) for a, m in self._operands(node, mode)]
        if op in ("shl", "shr") and self.is_vector(node.args[1]):
            return one_by_one(self.f, op, types, node.type, args)
        return spell_lanes(self.f, op, types, node.type, args)

    # Indices

    def _single(self, v: K) -> bytes:
        if extent(v) == 1:
            return i32(0)
        shift = self.shift.get(v, 0)
        code = get(self.chain[self._depth[v]].local)
        return code + i32(shift) + OP["i32.add"] if shift else code

    def _sum(self, node: K) -> bytes:
        """A linear expression of the variables at lane 0; terms that differ from lane to lane are left out."""
        constant, terms, *_ = self._terms(node)
        code, started = b"", False
        for t, c in terms:
            if t.op == "var":
                part = self._single(t)
            elif self.is_vector(t):
                continue
            else:
                part = self.known(t, "s")
            part += i32(c) + OP["i32.mul"] if c != 1 else b""
            code += part + OP["i32.add"] if started else part
            started = True
        if not started:
            return i32(constant)
        return code + i32(constant) + OP["i32.add"] if constant else code

    def _index_lanes(self, node: K) -> bytes:
        code = self._sum(node) + OP["i32x4.splat"]
        for t, c in self._terms(node).terms:
            if t is self.lane:
                code += v128(pack("<4i", *(c * n for n in range(4)))) + OP["i32x4.add"]
            elif self.is_vector(t):
                scale = v128(pack("<i", c)) + OP["i32x4.mul"] if c != 1 else b""
                code += self.known(t, "v") + scale + OP["i32x4.add"]
        return code

    # Loads

    def _plan(self, node: K) -> str:
        """How a vector load reaches its four elements: "near" neighbours, "far" at a constant distance, or "gather"."""
        found = self._plans.get((node, self.lane))
        if found is not None:
            return found
        index, *mask = node.args
        plan = "gather"
        if self.lane is not None and not self._vectors(index):
            step = vary(index, self.lane)
            if step == 1:
                plan = "mixed" if mask and self.is_vector(mask[0]) else "near"
            elif step and not mask:
                plan = "far"
        self._plans[node, self.lane] = plan
        return plan

    def _load_operands(self, node: K, mode: str) -> list[tuple[K, str]]:
        index, *mask = node.args
        nested = [(t, "s") for t in self._nested(index) if not self.is_vector(t)]
        if mode == "s":
            return [*nested, *((m, "s") for m in mask)]
        plan = self._plan(node)
        found = [(m, "v") for m in mask]
        if plan in ("near", "far", "mixed"):
            found += nested
            found += [(m, "s") for m in mask if plan == "near"]
        if plan in ("gather", "mixed"):
            found.append((index, "v"))
        return found

    def _load_single(self, node: K) -> bytes:
        argument: int = node.value
        dtype = self.arguments[argument].name
        address, offset = self.address(argument, node.args[0])
        if len(node.args) == 1:
            return load_scalar(self.f, dtype, address, offset)
        mask = self._local(node.args[1], "s")
        value = load_scalar(self.f, dtype, self._safe(argument, address, offset, mask), 0)
        zero = CONSTANT[node.type] + bytes(8 if node.type == "float64" else 4) if node.type in CONSTANT else i32(0)
        return value + (b"\x42\0" if node.type == "int64" else zero) + mask + OP["select"]

    def _safe(self, argument: int, address: bytes, offset: int, mask: bytes) -> bytes:
        """The address where the mask is true, else that of the argument's first element, which always exists."""
        there = address + i32(offset) + OP["i32.add"] if offset else address
        return there + get(argument) + mask + OP["select"]

    def _local(self, node: K, mode: str) -> bytes:
        """Code that may be repeated for the value of an expression."""
        code = self.known(node, mode)
        if code[0] == 0x20 and len(code) <= 3:
            return code
        local = self.f.local("v128" if mode == "v" else VALUE[node.type])
        self.chain[self.home(node)].code += code + put(local)
        self._known[self.key(node), mode] = get(local)
        return get(local)

    def _load_vector(self, node: K) -> bytes:
        argument: int = node.value
        dtype, index, mask = self.arguments[argument].name, node.args[0], node.args[1:]
        plan = self._plan(node)
        if plan == "gather":
            return self._gather(argument, index, mask)
        if plan == "far":
            return self._far(argument, index)
        address, offset = self.address(argument, index)
        if not mask:
            return load_lanes(self.f, dtype, address, offset)
        if plan == "near":
            address = self._safe(argument, address, offset, self._local(mask[0], "s"))
            return load_lanes(self.f, dtype, address, 0) + self.known(mask[0], "v") + OP["v128.and"]
        lanes = self._local(mask[0], "v")
        some = self._gather(argument, index, mask)
        whole = load_lanes(self.f, dtype, address, offset)
        return lanes + OP["i32x4.all_true"] + OP["if v128"] + whole + OP["else"] + some + OP["end"]

    def _far(self, argument: int, index: K) -> bytes:
        assert self.lane is not None
        step = vary(index, self.lane) or 0
        low = min(0, 3 * step)
        size, dtype = self.arguments[argument].itemsize, self.arguments[argument].name
        address, offset = self.address(argument, index, low)
        if step == -1:
            both = tee(self.f.spare("v128", 23)) + get(self.f.spare("v128", 23))
            return load_lanes(self.f, dtype, address, offset) + both + REVERSED
        return pick_lanes(self.f, dtype, [(address, offset + (n * step - low) * size) for n in range(4)])

    def _transpose(self, node: K) -> bool:
        """Whether four copies side by side are read as four vectors along the copied axis, and turned in registers."""
        index = node.args[0]
        if self._plan(node) != "far" or self.lane is None or self.arguments[node.value].itemsize != 4:
            return False
        step, shift = vary(index, self.lane) or 0, dict(self.shift)
        along = [v for v, n in self.copies.items() if v is not self.lane and n >= 4 and vary(index, v) == 1]
        if not along:
            return False
        (axis, *_) = along
        first = shift.get(axis, 0) // 4 * 4
        if first + 4 > self.copies[axis]:
            return False
        scope = self.chain[self.home(node)]
        self.shift = {**shift, axis: first}
        rows = []
        for n in range(4):
            address, offset = self.address(node.value, index, n * step)
            rows.append(self._into(scope, address + OP["v128.load"] + memarg(offset, 2)))
        (a, b), (c, d) = ([self._into(scope, rows[n] + rows[n + 1] + half) for half in INTERLEAVED] for n in (0, 2))
        turned = [self._into(scope, x + y + half) for x, y in ((a, c), (b, d)) for half in PAIRED]
        for n, code in enumerate(turned):
            self.shift = {**shift, axis: first + n}
            slot = (self.key(node), "v")
            self._known[slot] = code
            scope.slots.append(slot)
        self.shift = shift
        return True

    def _into(self, scope: Scope, code: bytes) -> bytes:
        """A vector computed in a scope, and kept."""
        local = self.f.local("v128")
        scope.code += code + put(local)
        return get(local)

    def _gather(self, argument: int, index: K, mask: Sequence[K]) -> bytes:
        size, dtype = self.arguments[argument].itemsize, self.arguments[argument].name
        places = self.f.local("v128")
        code = self.known(index, "v")
        if mask:  # element 0 stands in where the mask is false
            code += self._local(mask[0], "v") + OP["v128.and"]
        code += put(places)
        scaled = i32(size.bit_length() - 1) + OP["i32.shl"] if size > 1 else b""
        take = [get(places) + OP["i32x4.extract_lane"] + bytes([n]) + scaled for n in range(4)]
        code += pick_lanes(self.f, dtype, [(get(argument) + one + OP["i32.add"], 0) for one in take])
        return code + self._local(mask[0], "v") + OP["v128.and"] if mask else code


def _offset(offset: int) -> bytes:
    return memarg(offset, 2)


def _is_number(node: K) -> bool:
    """Whether an expression is a constant that is not NaN."""
    return node.op == "const" and not isnan(const_value(node))


def _constant(node: K, mode: str) -> bytes:
    value = node.value
    if isinstance(value, bytes):
        if mode == "v":
            return v128(value)
        if node.type in CONSTANT:
            return CONSTANT[node.type] + value
        number = int.from_bytes(value, "little", signed=True)
        return i64(number) if node.type == "int64" else i32(number)
    number = int(value)
    if mode == "s":
        return i32(number)
    return v128(pack("<i", -number if node.type == "bool" else number))
