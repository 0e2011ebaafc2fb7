"""export: a model as a folder of static files (docs/spec/program.md, section 6)."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..argument import instance
from ..dtype import DType, canonical
from ..errors import DTypeError, FormatError, ShapeError, TraceError
from ..formats.safetensors import save_tensors
from ..functional.conversion import asarray, astype
from ..jit import tracing
from ..nn.module import Module
from ..program.codec import encode
from ..surroundings import Surroundings
from ..tensor import Node, Tensor
from ..tree import flatten_tree
from .manifest import ENTRY, NAME, Manifest, ProgramFile, Value

if TYPE_CHECKING:
    from ..graph.graph import Graph
    from ..program.program import Program

__all__ = ["Spec", "export"]

WEIGHTS = "weights.safetensors"
# of each target: file, features that its Program may use, and the code generator that it is shaped for. Pages take the
# first that runs there, so what is for wasmtime comes last
FILES: dict[str, list[tuple[str, tuple[str, ...], str]]] = {
    "webgpu": [("webgpu.nfp", (), "")],
    "wasm": [
        ("wasm.nfp", ("relaxed-simd",), ""),
        ("wasm-simd.nfp", (), ""),
        ("wasm-native.nfp", ("relaxed-simd",), "cranelift"),
    ],
}
BINDINGS = {"webgpu": 8, "wasm": 32}  # arguments of a kernel: 8 is what every WebGPU device has


@dataclass(frozen=True, slots=True)
class Spec:
    """The shape and element type of an input of which no example is at hand."""

    shape: tuple[int, ...]
    dtype: Any = "float32"


def export(
    model: Module | Callable[..., Any],
    path: str | PathLike[str],
    *,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    dtype: Any = None,
    metadata: Mapping[str, Any] | None = None,
    targets: Sequence[str] = ("webgpu", "wasm"),
) -> Path:
    """Write the model as a folder that pages load with `load("./folder/")` and Python with `nf.load`.

    It appears whole or not at all.

    model     a Module, or a function of Tensors; it is called once, as in use (`eval`), with stand-ins for its inputs
    inputs    a name for each argument, in order, with an example or a Spec
    outputs   names of what it returns; by default the keys of a dict, "output", or "output0", "output1", …
    labels    what the classes are called
    dtype     "float16" makes the weights half as large, in the file and in memory
    metadata  whatever JSON can hold
    targets   "webgpu" and "wasm": a page takes the first that runs there
    returns   the folder
    errors    FormatError if the folder holds anything but an older export, which is replaced in the end; DTypeError for
              other targets and dtypes
    """
    folder = Path(path)
    _check_free(folder)
    wrong = [t for t in targets if t not in FILES]
    if wrong or not targets:
        raise DTypeError(f"export: targets is {tuple(targets)!r}; accepted are 'webgpu' and 'wasm', one or both.")
    instance("export", Mapping, "a dict of a name and an example for each argument", inputs=inputs)
    traced = _trace(model, inputs, outputs, _real(dtype))
    programs: dict[ProgramFile, Program] = {}
    for target in targets:
        for file, features, generator in FILES[target]:
            program = _program(traced, target, features, generator)
            programs[ProgramFile(file, target, program.features, generator)] = program
    manifest = Manifest(
        tuple(programs), WEIGHTS, traced.inputs, traced.outputs, tuple(map(str, labels or ())), dict(metadata or {})
    )
    with _replacing(folder) as beside:
        (beside / NAME).write_text(manifest.encode(), encoding="utf-8")
        for row, program in programs.items():
            (beside / row.file).write_bytes(encode(program))
        save_tensors(beside / WEIGHTS, traced.weights, {"format": "nearfield"})
    return folder


def _real(dtype: Any) -> DType | None:
    """The type of the stored weights; None for their own."""
    found = None if dtype is None else canonical(dtype)
    if found is not None and found.name not in ("float16", "float32"):
        raise DTypeError(
            f"export: dtype is {found.name}; accepted are float16 and float32. For 8 or 4 bits export "
            "nn.quantize(model) or nn.quantize_static(model, examples)."
        )
    return found


# -- what a call of the model records ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Traced:
    """The Graph, whose inputs are the model's inputs and then its weights."""

    graph: "Graph"
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weights: dict[str, Tensor]


def _trace(model: Any, inputs: Mapping[str, Any], names: Sequence[str] | None, dtype: DType | None) -> _Traced:
    from ..trace import ordered, trace

    values = tuple(_value(name, example) for name, example in inputs.items())
    stand_ins = [_placeholder(v.shape, canonical(v.dtype)) for v in values]
    weights: dict[str, tuple[Tensor, Tensor]] = {}
    with _lent(model, dtype, weights), tracing():
        result = model(*stand_ins)
    outputs = _named(result, names)
    roots = [t.node for t in outputs.values()]
    reached = {id(node) for node in ordered(roots)}
    weights = {name: pair for name, pair in weights.items() if id(pair[0].node) in reached}
    placeholders = [t.node for t in stand_ins] + [stand_in.node for stand_in, _ in weights.values()]
    graph, feeds = trace(roots, placeholders)
    found = {name: value for name, (_, value) in weights.items()}
    found |= {f"constant{n}": Tensor(node) for n, node in enumerate(feeds[len(placeholders) :])}
    results = tuple(Value(name, t.shape, t.dtype.name) for name, t in outputs.items())
    return _Traced(graph, values, results, found)


def _value(name: str, example: Any) -> Value:
    if isinstance(example, Spec):
        return Value(name, tuple(example.shape), canonical(example.dtype).name)
    tensor = asarray(example)
    return Value(name, tensor.shape, tensor.dtype.name)


def _placeholder(shape: tuple[int, ...], dtype: DType) -> Tensor:
    return Tensor(Node(None, (), {}, shape, dtype))


@contextmanager
def _lent(model: Any, dtype: DType | None, weights: dict[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """While it lasts, the model's state is stand-ins, and its mode that of use.

    weights  is filled: name -> stand-in, value to store
    """
    owners = [model] if isinstance(model, Module) else Surroundings(model).owners
    before = [owner.state_tensors() for owner in owners]
    modules = {id(part): part for owner in owners if isinstance(owner, Module) for part in owner.modules().values()}
    modes = [(part, vars(part).get("training")) for part in modules.values()]
    lent: list[dict[str, Tensor]] = []
    once: dict[int, Tensor] = {}
    for n, tensors in enumerate(before):
        prefix = f"{n}." if len(owners) > 1 else ""
        lent.append({name: _stand_in(prefix + name, t, dtype, weights, once) for name, t in tensors.items()})
    try:
        for owner, tensors in zip(owners, lent, strict=True):
            owner.set_state_tensors(tensors)
        for part in modules.values():
            part.training = False
        yield
        for owner, tensors in zip(owners, lent, strict=True):
            _check_unchanged(owner, tensors)
    finally:
        for owner, tensors in zip(owners, before, strict=True):
            owner.set_state_tensors(tensors)
        for part, mode in modes:
            vars(part).pop("training", None)
            if mode is not None:
                part.training = mode


def _stand_in(
    name: str, t: Tensor, dtype: DType | None, weights: dict[str, tuple[Tensor, Tensor]], once: dict[int, Tensor]
) -> Tensor:
    """What the model computes with in place of the Tensor; shared Tensors are stored once."""
    if id(t) not in once:
        stored = astype(t, dtype) if dtype is not None and t.dtype.kind == dtype.kind == "f" else t
        stand_in = _placeholder(t.shape, stored.dtype)
        weights[name] = stand_in, stored
        once[id(t)] = astype(stand_in, t.dtype)
    return once[id(t)]


def _check_unchanged(owner: Any, lent: dict[str, Tensor]) -> None:
    after = owner.state_tensors()
    changed = [name for name, t in lent.items() if name not in after or after[name].node is not t.node]
    changed += after.keys() - lent.keys()
    if changed:
        raise TraceError(
            f"export: calling the model changes its {changed[0]!r}; accepted are models that only read their state. "
            "Make it an input and an output."
        )


def _named(result: Any, names: Sequence[str] | None) -> dict[str, Tensor]:
    """What the model returns, by name."""
    if isinstance(result, dict):
        leaves, known = list(result.values()), [str(key) for key in result]
    else:
        leaves = [result] if isinstance(result, Tensor) else flatten_tree(result)[0]
        known = ["output"] if len(leaves) == 1 else [f"output{n}" for n in range(len(leaves))]
    odd = [type(x).__name__ for x in leaves if not isinstance(x, Tensor)]
    if odd or not leaves:
        what = f"a {odd[0]}" if odd else "nothing"
        raise DTypeError(f"export: the model returns {what}; accepted are Tensors, or a tuple or dict of them.")
    if names is not None and (len(set(names)) != len(names) or len(names) != len(leaves)):
        raise ShapeError(
            f"export: outputs is {list(names)!r}; accepted are {len(leaves)} names, each once: "
            "the model returns as many Tensors."
        )
    return dict(zip(names or known, leaves, strict=True))


# -- Programs and files ------------------------------------------------------------------------------------------------


def _program(traced: _Traced, target: str, features: tuple[str, ...], generator: str) -> "Program":
    from ..compiler.cached import cached_build
    from ..compiler.target import Target
    from ..compiler.wgsl_numbers import share_texts

    wide = [line.dtype.name for line in traced.graph.lines if line.dtype.itemsize == 8]
    if target == "webgpu" and wide:
        raise DTypeError(
            f"export: the model computes with {wide[0]}, which WebGPU lacks; give targets=('wasm',), or use 32 bits."
        )
    count = len(traced.inputs)
    weights = {count + n: name for n, name in enumerate(traced.weights)}
    taken = set(traced.weights)
    values = {"input": traced.inputs, "output": traced.outputs}
    names = {kind: [_free_name(v.name, taken) for v in found] for kind, found in values.items()}
    device = Target(target, frozenset(features), BINDINGS[target], code_generator=generator)
    built = cached_build(traced.graph, device, weights=weights, names=names, entry=ENTRY)
    for value, (kind, n), at in zip(traced.outputs, built.results, range(len(built.results)), strict=True):
        if kind != "output" or n != at:
            raise ShapeError(
                f"export: output {value.name!r} is the same as an input, a weight or another output; leave it out."
            )
    return share_texts(built.program, BINDINGS[target]) if target == "webgpu" else built.program


def _free_name(name: str, taken: set[str]) -> str:
    """A name for a buffer: pages and Python use those in model.json, which may be the same as weights'."""
    while name in taken:
        name += "'"
    taken.add(name)
    return name


def _check_free(folder: Path) -> None:
    """FormatError if writing here would lose something: only an older export may be replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise FormatError(
            f"export: {folder} is no folder of its own; accepted is a new name, an empty folder or an older export."
        )
    there = {p.name for p in folder.iterdir()}
    try:
        known = Manifest.decode((folder / NAME).read_bytes(), str(folder / NAME)).files if there else set()
    except (FormatError, OSError):
        known = set()
    if there - known:
        raise FormatError(
            f"export: {folder} holds {min(there - known)!r}, which no export wrote; accepted is a new name, "
            "an empty folder or an older export. Give another path, or empty the folder."
        )


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside the wanted one; at the end it takes its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside, old = (folder.with_name(f".{folder.name}.{word}-{os.getpid()}") for word in ("new", "old"))
    beside.mkdir()
    try:
        yield beside
        _check_free(folder)
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
