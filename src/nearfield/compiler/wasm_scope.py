"""Scopes: a nest of loops being written, and addresses in it.

Each thing is computed in the outermost loop that binds all its variables. Addresses are split by loop in the same way
and walk along with the loops as pointers, so that inner loops load and store with constant offsets.

One loop variable may be the *lane*: four of its values are computed at a time, and what depends on it is a vector.
Others may be *shifted*: unrolled copies of a loop's body differ in a small constant that is added to the variable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..dtype import DType
from ..index import linear
from ..scalar import K
from .wasm_bytes import OP, Function, get, i32, put
from .wasm_schedule import extent

__all__ = ["Key", "Scope", "Scopes"]

Key = Any  # an expression, or a tuple of it and the shifts of its variables


@dataclass(slots=True)
class Scope:
    """A loop's body (or a branch) being written.

    local  holds the variable; step is how much it grows each time round, 0 where that is not a loop
    init   goes in front of the loop, moves to the end of its body
    """

    var: K | None = None
    local: int = 0
    step: int = 0
    code: bytearray = field(default_factory=bytearray)
    init: bytearray = field(default_factory=bytearray)
    moves: bytearray = field(default_factory=bytearray)
    slots: list[Key] = field(default_factory=list)


class Terms(NamedTuple):
    """An index as constant + Σ coefficient · term.

    nested  those of the terms that are no variables
    bias    the constant where part of the index may be negative, else 0
    """

    constant: int
    terms: list[tuple[K, int]]
    nested: list[K]
    bias: int


class Scopes:
    """The scopes of one function, and what is known in them."""

    def __init__(self, arguments: Sequence[DType]) -> None:
        self.arguments = arguments
        self.f = Function(len(arguments) + 2)
        self.chain = [Scope()]
        self.lane: K | None = None
        self.jams: tuple[K, ...] = ()  # the variables that may be shifted
        self._keys_of_shift: dict[tuple[tuple[K, int], ...], dict[K, Key]] = {}
        self.shift = {}
        self._depth: dict[K, int] = {}
        self._known: dict[Key, bytes] = {}
        self._moved: dict[K, tuple[K, ...]] = {}
        self._linear: dict[K, Terms] = {}

    @property
    def shift(self) -> dict[K, int]:
        """What is added to variables in the copy that is being written: a new dict for another copy."""
        return self._shift

    @shift.setter
    def shift(self, shift: dict[K, int]) -> None:
        self._shift = shift
        self._keys = self._keys_of_shift.setdefault(tuple(shift.items()), {})

    def enter(self, var: K | None = None, local: int = 0, step: int = 0) -> Scope:
        """Open a scope inside the innermost."""
        scope = Scope(var, local, step)
        if var is not None:
            self._depth[var] = len(self.chain)
        self.chain.append(scope)
        return scope

    def leave(self) -> Scope:
        """Close the innermost scope and forget what was computed there; its code is the caller's to place."""
        scope = self.chain.pop()
        for slot in scope.slots:
            self._known.pop(slot, None)
        if scope.var is not None:
            del self._depth[scope.var]
        return scope

    def home(self, node: K) -> int:
        """The number of the outermost scope that binds all the variables of an expression."""
        free = node.free
        return max([self._depth[v] for v in free]) if free else 0

    def bound(self, node: K) -> bool:
        """Whether all variables of an expression are bound here."""
        return all(v in self._depth for v in node.free)

    def emit(self, code: bytes) -> None:
        """Append code to the innermost scope."""
        self.chain[-1].code += code

    def moved(self, node: K) -> tuple[K, ...]:
        """Those of the shiftable variables that an expression depends on."""
        found = self._moved.get(node)
        if found is None:
            free = node.free
            found = self._moved[node] = tuple([v for v in self.jams if v in free])
        return found

    def key(self, node: K) -> Key:
        """What tells the copies of an expression apart."""
        moved = self._moved.get(node)
        if moved is None:
            moved = self.moved(node)
        if not moved:
            return node
        found = self._keys.get(node)
        if found is None:
            found = self._keys[node] = (node, *[self._shift.get(v, 0) for v in moved])
        return found

    def is_vector(self, node: K) -> bool:
        """Whether an expression differs from lane to lane."""
        return self.lane in node.free

    def known(self, node: K, mode: str) -> bytes:
        """Code that pushes an expression that has been written already."""
        return self._known[self.key(node), mode]

    # Addresses

    def _terms(self, index: K) -> Terms:
        found = self._linear.get(index)
        if found is None:
            constant, table = linear(index)
            terms = list(table.items())
            # the base must itself be an address (adding an offset does not wrap around): not before the argument
            below = constant < 0 or any(c < 0 or t.low < 0 for t, c in terms)
            nested = [t for t, _ in terms if t.op != "var"]
            found = self._linear[index] = Terms(constant, terms, nested, constant if below else 0)
        return found

    def _nested(self, index: K) -> list[K]:
        return self._terms(index).nested

    def _vectors(self, index: K) -> bool:
        """Whether a term of an index, other than the lane itself, differs from lane to lane."""
        return any(self.is_vector(t) for t in self._nested(index))

    def address(self, argument: int, index: K, more: int = 0) -> tuple[bytes, int]:
        """Code for the address of element index + more (at lane 0), and a constant to add to it."""
        constant, terms, _, bias = self._terms(index)
        offset = constant - bias + more
        rest: list[tuple[K, int]] = []
        keys: list[Key] = []
        for term in terms:
            t, c = term
            if t.op != "var":
                rest.append(term)
                keys.append((self.key(t), c))
            elif extent(t) > 1:
                offset += c * self._shift.get(t, 0)
                rest.append(term)
                keys.append(term)
        if offset < 0:  # below the base, where an unsigned offset cannot reach
            bias, offset = bias + offset, 0
        return self._pointer(argument, bias, rest, keys), offset * self.arguments[argument].itemsize

    def _pointer(self, argument: int, bias: int, terms: list[tuple[K, int]], keys: list[Key]) -> bytes:
        """Code for the address of element bias + Σ terms; the keys tell these apart."""
        slot = ("address", argument, bias, *keys)
        found = self._known.get(slot)
        if found is not None:
            return found
        size = self.arguments[argument].itemsize
        if not terms:
            return self._base(slot, argument, bias * size)
        depths = [self.home(t) for t, _ in terms]
        deep = max(depths)
        here = [term for term, d in zip(terms, depths, strict=True) if d == deep]
        outside = [n for n, d in enumerate(depths) if d < deep]
        code = self._pointer(argument, bias, [terms[n] for n in outside], [keys[n] for n in outside])
        scope = self.chain[deep]
        local = self.f.local("i32")
        if scope.step and len(here) == 1 and here[0][0] is scope.var:
            pace = here[0][1] * size
            scope.init += code + get(scope.local) + i32(pace) + OP["i32.mul"] + OP["i32.add"] + put(local)
            scope.moves += get(local) + i32(pace * scope.step) + OP["i32.add"] + put(local)
        else:
            for t, c in here:
                part = get(self.chain[self._depth[t]].local) if t.op == "var" else self.known(t, "s")
                code += part + i32(c * size) + OP["i32.mul"] + OP["i32.add"]
            scope.code += code + put(local)
        scope.slots.append(slot)
        code = self._known[slot] = get(local)
        return code

    def _base(self, slot: Key, argument: int, bias: int) -> bytes:
        code = get(argument)
        if bias:
            local = self.f.local("i32")
            self.chain[0].code += code + i32(bias) + OP["i32.add"] + put(local)
            code = get(local)
        self.chain[0].slots.append(slot)
        self._known[slot] = code
        return code
