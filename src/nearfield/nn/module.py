"""Module: an object whose Tensors are parameters, named by the dotted path of attributes that leads to them.

There is no registration and no build step: what the attributes hold when a method is called is what counts. Tensors do
not
change; an optimiser puts new ones in their place.
"""

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from types import BuiltinFunctionType, FunctionType
from typing import Any, ClassVar, NamedTuple, Self

from ..argument import instance
from ..errors import FormatError, ShapeError
from ..state import Place, Stateful, tell
from ..tensor import Tensor, call

__all__ = ["Entry", "Module", "entries"]

Path = tuple[Any, ...]


class Entry(NamedTuple):
    """One Tensor (or one object with state of its own, such as a random generator) that a module holds.

    name   the dotted path from the module that was asked
    owner  the innermost module on that path
    path   attribute name and keys, from the owner
    """

    name: str
    owner: "Module"
    path: Path
    value: Any


_PLAIN = frozenset((int, float, str, bool, type(None)))  # most attributes; passed over at once


def _has_state(value: object) -> bool:
    return hasattr(value, "state_tensors") and not isinstance(value, type)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _attributes(module: "Module") -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(module).items() if name[0] != "_")


def entries(module: "Module") -> list[Entry]:
    """Everything with a value that a step could change: depth first, in order of assignment, shared objects once."""
    found: list[Entry] = []
    _collect(module, "", {id(module)}, found)
    return found


def _collect(owner: "Module", prefix: str, seen: set[int], found: list[Entry]) -> None:
    for name, value in vars(owner).items():
        if type(value) is Tensor and name[0] != "_":
            found.append(Entry(prefix + name, owner, (name,), value))
        elif type(value) not in _PLAIN and name[0] != "_":
            _collect_in(owner, (name,), value, prefix + name, seen, found)


def _collect_in(owner: "Module", path: Path, value: Any, name: str, seen: set[int], found: list[Entry]) -> None:
    if isinstance(value, Tensor):
        found.append(Entry(name, owner, path, value))
    elif isinstance(value, Module):
        if id(value) not in seen:
            seen.add(id(value))
            _collect(value, name + ".", seen, found)
    elif isinstance(value, (dict, list, tuple)):
        for key, part in _items(value):
            if type(part) not in _PLAIN:
                _collect_in(owner, (*path, key), part, f"{name}.{key}", seen, found)
    elif _has_state(value) and id(value) not in seen:
        seen.add(id(value))
        found.append(Entry(name, owner, path, value))


def _containers(module: "Module") -> Iterator[Place]:
    """The lists and dicts of a module, and those inside them."""
    for name, value in _attributes(module):
        if isinstance(value, (dict, list, tuple)):
            yield from _containers_in(module, (name,), value)


def _containers_in(owner: "Module", path: Path, value: Any) -> Iterator[Place]:
    if not isinstance(value, tuple):
        yield Place("", owner, path)
    for key, part in _items(value):
        if isinstance(part, (dict, list, tuple)):
            yield from _containers_in(owner, (*path, key), part)


def _replaced(container: Any, path: Path, value: Any) -> Any:
    """The container with the value at the path: lists and dicts change, tuples are made anew."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    new = _replaced(container[key], rest, value)
    if isinstance(container, tuple):
        parts = [new if i == key else part for i, part in enumerate(container)]
        return type(container)(*parts) if hasattr(container, "_fields") else tuple(parts)
    container[key] = new
    return container


def _in_tuple(owner: "Module", path: Path) -> bool:
    """Whether a new value at the path needs a new tuple, too."""
    held = vars(owner)[path[0]]
    for key in path[1:]:
        if isinstance(held, tuple):
            return True
        held = held[key]
    return False


def _put(entry: Entry, value: Tensor) -> None:
    owner, path = vars(entry.owner), entry.path
    owner[path[0]] = value if len(path) == 1 else _replaced(owner[path[0]], path[1:], value)
    tell(entry.owner)


class Module(Stateful):
    """What layers and models are.

    class MLP(nn.Module):
        def __init__(self):
            self.hidden, self.out = nn.Linear(784, 128), nn.Linear(128, 10)

        def __call__(self, x):
            return self.out(nn.relu(self.hidden(x)))

    Attributes that hold Tensors are parameters, and so are those in nested modules, lists, tuples and dicts. A class
    names in
    `buffers` the attributes that are state but not trained. Attributes that begin with an underscore are left alone.
    """

    buffers: ClassVar[tuple[str, ...]] = ()
    training: bool = True
    _frozen: frozenset[Path] = frozenset()

    def _is_parameter(self, entry: Entry) -> bool:
        return (
            isinstance(entry.value, Tensor)
            and entry.value.dtype.kind == "f"
            and entry.path[0] not in entry.owner.buffers
        )

    def parameters(self) -> dict[str, Tensor]:
        """The trainable Tensors by name: real, not frozen, no buffers."""
        found = (e for e in entries(self) if self._is_parameter(e))
        return {e.name: e.value for e in found if e.path not in e.owner._frozen}

    def state(self) -> dict[str, Tensor]:
        """All Tensors by name, frozen ones and buffers included: what is saved."""
        return {e.name: e.value for e in entries(self) if isinstance(e.value, Tensor)}

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that a step may change: `state()`, and the state of random generators."""
        found: dict[str, Tensor] = {}
        for name, _, _, value in entries(self):
            if isinstance(value, Tensor):
                found[name] = value
            else:
                found |= {f"{name}.{key}": t for key, t in value.state_tensors().items()}
        return found

    def set_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put Tensors in the places that `state_tensors` names; those not given stay."""
        for e in entries(self):
            if isinstance(e.value, Tensor):
                if e.name in tensors:
                    _put(e, tensors[e.name])
                continue
            inner = {key: tensors[f"{e.name}.{key}"] for key in e.value.state_tensors() if f"{e.name}.{key}" in tensors}
            if inner:
                e.value.set_state_tensors(inner)

    def state_places(self) -> tuple[list[Place], list[Place]] | None:
        """Where each Tensor of `state_tensors` is, and all lists and dicts; None if one is in a tuple."""
        places: list[Place] = []
        containers = [place for part in self.modules().values() for place in _containers(part)]
        for name, owner, path, value in entries(self):
            inner = value.state_places() if isinstance(value, Stateful) else None
            if inner is not None:
                places += [Place(f"{name}.{key}", part, way) for key, part, way in inner[0]]
                containers += inner[1]
            elif type(value) is not Tensor or _in_tuple(owner, path):
                return None
            else:
                places.append(Place(name, owner, path))
        return places, containers

    def state_key(self) -> tuple[Any, ...]:
        """What else a step depends on, as one hashable value: modes, what is frozen, settings, functions."""
        return tuple(
            (
                type(part),
                part._frozen,
                tuple((name, value) for name, value in _attributes(part) if _is_setting(value)),
                tuple(f for _, value in _attributes(part) for f in _functions(value)),
            )
            for part in self.modules().values()
        )

    def modules(self) -> "dict[str, Module]":
        """This module (under "") and all inside it, by dotted path; shared ones once."""
        found: dict[str, Module] = {}
        _find_modules(self, "", found, set())
        return found

    def update(self, tensors: Mapping[str, Any]) -> Self:
        """Put new values in place of those named; they take the dtype that is there.

        errors   ShapeError if a size differs; KeyError for a name that is not there
        """
        instance(f"{type(self).__name__}.update", Mapping, "a dict of values by name", tensors=tensors)
        places = {e.name: e for e in entries(self) if isinstance(e.value, Tensor)}
        new: dict[str, Tensor] = {}
        for name, value in tensors.items():
            if name not in places:
                raise KeyError(_unknown(f"{type(self).__name__}.update", name, places))
            old, tensor = places[name].value, call("asarray", value)
            if tensor.shape != old.shape:
                raise ShapeError(
                    f"{type(self).__name__}.update: {name!r} has shape {tensor.shape}; accepted is {old.shape}, as it "
                    "is now."
                )
            new[name] = call("astype", tensor, old.dtype)
        for name, tensor in new.items():
            _put(places[name], tensor)
        return self

    def freeze(self, *names: str) -> Self:
        """Keep parameters as they are: all, or those of the names (of Tensors, or of the modules that hold them).

        A frozen BatchNorm uses its running statistics and leaves them alone.
        """
        for e in self._chosen("freeze", names):
            e.owner._frozen |= {e.path}
        return self

    def unfreeze(self, *names: str) -> Self:
        """Train again what `freeze` kept: all, or those of the names."""
        for e in self._chosen("unfreeze", names):
            e.owner._frozen -= {e.path}
        return self

    def _chosen(self, who: str, names: tuple[str, ...]) -> list[Entry]:
        for name in names:
            instance(f"{type(self).__name__}.{who}", str, "a name, as in model.parameters()", name=name)
        found = [e for e in entries(self) if isinstance(e.value, Tensor)]
        chosen = [e for e in found if not names or any(e.name == n or e.name.startswith(n + ".") for n in names)]
        for n in names:
            if not any(e.name == n or e.name.startswith(n + ".") for e in found):
                raise KeyError(_unknown(f"{type(self).__name__}.{who}", n, [*self.modules(), *(e.name for e in found)]))
        return chosen

    @property
    def is_frozen(self) -> bool:
        """Whether any Tensor of this module itself is frozen."""
        return bool(self._frozen)

    def train(self, training: bool = True) -> Self:
        """Behave as in training: Dropout drops, BatchNorm learns its statistics."""
        for module in self.modules().values():
            module.training = training
        return self

    def eval(self) -> Self:
        """Behave as in use: every call with the same input gives the same result."""
        return self.train(False)

    @property
    def num_parameters(self) -> int:
        """The number of parameters, one for each element, frozen ones included."""
        return sum(e.value.size for e in entries(self) if self._is_parameter(e))

    def copy(self) -> Self:
        """A module of the same structure and values that can be trained on its own."""
        import copy

        return copy.deepcopy(self, {id(tensor): tensor for tensor in self.state_tensors().values()})

    def save(self, path: str | PathLike[str]) -> None:
        """Write `state()` as a safetensors file. It appears whole or not at all."""
        from ..formats.safetensors import save_tensors

        save_tensors(path, self.state(), {"format": "nearfield", "module": type(self).__name__})

    def load(self, path: str | PathLike[str], *, strict: bool = True) -> Self:
        """Take the values of a safetensors file, in the dtypes that are here.

        strict   names must be the same here and there; otherwise only those in both are taken
        errors   FormatError if the file is damaged or a name is missing; ShapeError if a size differs
        """
        from ..formats.safetensors import load_tensors

        for part in self.modules().values():
            part._check_load(path)
        there, here = load_tensors(path), self.state()
        lacking, surplus = [n for n in here if n not in there], [n for n in there if n not in here]
        if strict and (lacking or surplus):
            parts = [f"lacks {_listed(lacking)}"] * bool(lacking) + [f"has {_listed(surplus)} too many"] * bool(surplus)
            raise FormatError(
                f"{type(self).__name__}.load: {path} {' and '.join(parts)}; accepted are the {len(here)} names of "
                "state(). "
                "Use strict=False to take those in both."
            )
        return self.update({name: tensor for name, tensor in there.items() if name in here})

    def _check_load(self, path: str | PathLike[str]) -> None:
        """An error if no file can hold all that this module, alone or within another, is made of."""

    def summary(self, example: Any = None) -> Any:
        """A table of the layers: what each returns for an example input, and its parameters.

        example  a Tensor, a tuple of Tensors, or a shape; nothing is computed
        """
        from .summary import summarise

        return summarise(self, example)

    def __repr__(self) -> str:
        lines = [f"{name}: {_indented(repr(part))}" for name, part in _children(self)]
        own = ", ".join(_details(self))
        title = type(self).__name__
        return f"{title}({own})" if not lines else "\n".join([f"{title}({own}", *(f"  {line}" for line in lines), ")"])


def _find_modules(value: Any, name: str, found: dict[str, Module], seen: set[int]) -> None:
    if isinstance(value, Module):
        if id(value) not in seen:
            seen.add(id(value))
            found[name] = value
            prefix = name + "." if name else ""
            for key, part in vars(value).items():
                if type(part) is not Tensor and type(part) not in _PLAIN and key[0] != "_":
                    _find_modules(part, prefix + key, found, seen)
    elif isinstance(value, (dict, list, tuple)):
        for key, part in _items(value):
            _find_modules(part, f"{name}.{key}", found, seen)


def _children(module: Module) -> Iterator[tuple[str, Any]]:
    """The modules that a module holds directly, and functions that stand between them in a list."""
    for name, value in _attributes(module):
        yield from _children_in(name, value)


def _children_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Module):
        yield name, value
    elif callable(value) and "." in name and not isinstance(value, type):
        yield name, _Named(getattr(value, "__name__", type(value).__name__))
    else:
        for key, part in _items(value):
            yield from _children_in(f"{name}.{key}", part)


def _functions(value: Any) -> Iterator[Any]:
    """Plain functions, such as nn.relu, in an attribute or in the lists, tuples and dicts there."""
    if isinstance(value, (FunctionType, BuiltinFunctionType)):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for _, part in _items(value):
            yield from _functions(part)


class _Named(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _details(module: Module) -> Iterator[str]:
    """A module's own Tensors with their shapes, and its settings."""
    for name, value in _attributes(module):
        if isinstance(value, Tensor):
            frozen = " frozen" if (name,) in module._frozen else ""
            yield f"{name}{list(value.shape)}{frozen}"
        elif name != "training" and _is_setting(value):
            yield f"{name}={value!r}"


def _is_setting(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_setting, value))
    return isinstance(value, (bool, int, float, str))


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _unknown(who: str, name: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, list(known), 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{who}: there is no {name!r}; accepted are the names of state() and modules().{hint}"
