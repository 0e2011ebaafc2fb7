"""Tables of a model's layers, for terminals and pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from ..tensor import Tensor, call
from ..tree import flatten_tree
from .module import Module, entries

__all__ = ["Row", "Summary", "summarise"]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its dotted name, its class, the shape it returns, and its own parameters."""

    name: str
    kind: str
    shape: str
    parameters: int
    frozen: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What `Module.summary` returns: text with `str`, a table in notebooks."""

    title: str
    rows: tuple[Row, ...]
    nbytes: int

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """The number of parameters that are not frozen."""
        return self.parameters - sum(row.frozen for row in self.rows)

    def _cells(self) -> list[tuple[str, str, str]]:
        return [
            (f"{row.name or self.title} ({row.kind})" if row.name else row.kind, row.shape, _parameters(row))
            for row in self.rows
        ]

    def _total(self) -> str:
        frozen = self.parameters - self.trainable
        parts = f"{self.parameters:,} parameters, {size_text(self.nbytes)}"
        return f"{parts}; {self.trainable:,} trainable, {frozen:,} frozen" if frozen else parts

    def __str__(self) -> str:
        head = ("layer", "output", "parameters")
        cells = [head, *self._cells()]
        wide = [max(len(row[i]) for row in cells) for i in range(3)]
        short = len(self._total()) - sum(wide) - 6
        wide[0] += max(short, 0)
        rule = ["─" * (w + 2) for w in wide]
        body = [f"│ {a:<{wide[0]}} │ {b:<{wide[1]}} │ {c:>{wide[2]}} │" for a, b, c in cells]
        width = sum(wide) + 6
        return "\n".join([
            f"┌{'┬'.join(rule)}┐", body[0], f"├{'┼'.join(rule)}┤", *body[1:], f"├{'┴'.join(rule)}┤",
            f"│ {self._total():<{width}} │", f"└{'─' * (width + 2)}┘",
        ])  # fmt: skip

    __repr__ = __str__

    def _repr_html_(self) -> str:
        style = "text-align:left;padding:2px 12px"
        right = "text-align:right;padding:2px 12px"
        rows = "".join(
            f"<tr><td style='{style}'>{escape(a)}</td><td style='{style}'>{escape(b)}</td>"
            f"<td style='{right}'>{c}</td></tr>"
            for a, b, c in self._cells()
        )
        return (
            f"<table style='border-collapse:collapse'><thead><tr><th style='{style}'>layer</th>"
            f"<th style='{style}'>output</th>"
            f"<th style='{right}'>parameters</th></tr></thead><tbody>{rows}</tbody>"
            f"<tfoot><tr><td colspan='3' style='{style};border-top:1px solid "
            f"#bbb'>{escape(self._total())}</td></tr></tfoot></table>"
        )


def _parameters(row: Row) -> str:
    return f"{row.parameters:,}{' frozen' if row.frozen else ''}" if row.parameters else "–"


def size_text(nbytes: int) -> str:
    """A number of bytes for people: 4.2 MB."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def summarise(module: Module, example: Any) -> Summary:
    """The table of a module; with an example input (or its shape) also what each layer returns."""
    shapes = _shapes(module, example) if example is not None else {}
    own: dict[int, list[Any]] = {}
    for e in entries(module):
        if module._is_parameter(e):
            own.setdefault(id(e.owner), []).append(e)
    rows = []
    for name, part in module.modules().items():
        held = own.get(id(part), [])
        frozen = sum(e.value.size for e in held if e.path in part._frozen)
        rows.append(Row(name, type(part).__name__, shapes.get(id(part), ""), sum(e.value.size for e in held), frozen))
    return Summary(type(module).__name__, tuple(rows), sum(t.nbytes for t in module.state().values()))


def _shapes(module: Module, example: Any) -> dict[int, str]:
    """What each module returns for the example, as text: one call of the model in use mode; nothing is computed."""
    args = _arguments(example)
    before = module.state_tensors()
    modes = {id(part): (part, part.training) for part in module.modules().values()}
    found: dict[int, str] = {}
    try:
        with _watched({type(part) for part, _ in modes.values()}, found):
            module.eval()(*args)  # type: ignore[operator]
    finally:
        module.set_state_tensors(before)
        for part, training in modes.values():
            part.training = training
    return found


def _arguments(example: Any) -> tuple[Any, ...]:
    if isinstance(example, (tuple, list)) and example and all(isinstance(n, int) for n in example):
        return (call("full", tuple(example), 0.0, dtype="float32"),)
    return tuple(example) if isinstance(example, tuple) else (call("asarray", example),)


@contextmanager
def _watched(kinds: set[type], found: dict[int, str]) -> Iterator[None]:
    """While it lasts, calls of these classes note what they return."""
    watched = {
        base: base.__dict__["__call__"]
        for kind in kinds
        for base in kind.__mro__
        if "__call__" in base.__dict__ and base is not type
    }

    def noting(function: Any) -> Any:
        def noted(self: Module, *args: Any, **options: Any) -> Any:
            result = function(self, *args, **options)
            found[id(self)] = ", ".join(str(list(t.shape)) for t in flatten_tree(result)[0] if isinstance(t, Tensor))
            return result

        return noted

    try:
        for base, function in watched.items():
            base.__call__ = noting(function)  # type: ignore[method-assign]
        yield
    finally:
        for base, function in watched.items():
            base.__call__ = function  # type: ignore[method-assign]
