"""Model: an exported model, run from Python."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

from ..argument import instance
from ..device import Device, Memory, Session, open_device
from ..dtype import DType, canonical
from ..errors import DeviceError, DTypeError, FormatError, ShapeError
from ..formats.safetensors import decode as decode_tensors
from ..functional.conversion import asarray, astype
from ..program.codec import decode
from ..program.program import Buffer, Program
from ..runtime import current_device, evaluate, is_chosen, place, read_note, write_note
from ..tensor import Tensor, leaf
from .manifest import ENTRY, NAME, Manifest, ProgramFile, Value

__all__ = ["Model", "load"]

ORDER = "biuf"  # a value may become one of its own kind, or of one to the right (and u to i)


class Model:
    """An exported model: call it with Tensors in the order of `inputs`, or `run` it with names.

    inputs     name, shape and element type of each
    outputs    the same
    labels     what the classes are called
    metadata   what the exporter wished to say
    """

    def __init__(
        self, where: str, manifest: Manifest, programs: dict[ProgramFile, Program], weights: dict[str, Tensor], key: str
    ) -> None:
        self.path = where
        self.inputs, self.outputs = manifest.inputs, manifest.outputs
        self.labels, self.metadata = manifest.labels, manifest.metadata
        self._programs, self._weights = programs, weights
        self._session: Session | None = None
        self._key = key  # a hash of the programs
        self._fastest: str | None = None

    def __call__(self, *inputs: Any) -> Any:
        """What the model makes of its inputs: a Tensor, or a tuple in the order of `outputs`.

        errors  ShapeError, DTypeError if an input does not fit; DeviceError if no Program runs on the current device
        """
        if len(inputs) != len(self.inputs):
            accepted = f"{len(self.inputs)}: {_listed(self.inputs)}"
            raise ShapeError(f"{self.path}: {len(inputs)} inputs were given; accepted are {accepted}.")
        session, memories = self.prepared(inputs)
        made = session.run(ENTRY, memories)
        results = [
            leaf(memory, value.shape, canonical(value.dtype)) for memory, value in zip(made, self.outputs, strict=True)
        ]
        return results[0] if len(results) == 1 else tuple(results)

    def prepared(self, inputs: Sequence[Any]) -> tuple[Session, list[Memory]]:
        """The loaded Program, and the inputs in its device's memory."""
        session = self._ready()
        tensors = [self._accepted(value, x) for value, x in zip(self.inputs, inputs, strict=True)]
        for t in tensors:
            evaluate(t.node)
        return session, [place(t.node, session.device) for t in tensors]

    def forget(self) -> None:
        """Give back the memory that the model holds on its device; the next call loads it again."""
        self._session = None

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs by name, as NumPy arrays (without NumPy: Tensors), for inputs by name.

        errors  KeyError for a name that is missing or unknown; and those of calling the model
        """
        instance("run", Mapping, f"a dict of inputs by name: {_listed(self.inputs)}", inputs=inputs)
        known = {v.name for v in self.inputs}
        wrong = sorted(known ^ inputs.keys())
        if wrong:
            word = "is missing" if wrong[0] in known else "is not an input"
            raise KeyError(f"{self.path}: {wrong[0]!r} {word}; accepted are {_listed(self.inputs)}.")
        results = self(*(inputs[v.name] for v in self.inputs))
        results = results if isinstance(results, tuple) else (results,)
        return {v.name: _array(y) for v, y in zip(self.outputs, results, strict=True)}

    def _accepted(self, value: Value, x: Any) -> Tensor:
        wanted = canonical(value.dtype)
        t = _borrowed(x, wanted)
        if t.shape != value.shape:
            raise ShapeError(f"{self.path}: input {value.name!r} has shape {t.shape}; accepted is {value.shape}.")
        if ORDER.index(t.dtype.kind) > ORDER.index(wanted.kind) and {t.dtype.kind, wanted.kind} != {"i", "u"}:
            raise DTypeError(
                f"{self.path}: input {value.name!r} has dtype {t.dtype.name}; accepted is {wanted.name}. "
                "Convert it with nf.astype."
            )
        return astype(t, wanted)

    @property
    def device(self) -> Device:
        """Where the next call runs: on the device that the user chose, else on what `tune` found, else as usual."""
        if self._fastest is None:
            self._fastest = str(read_note(self.note))
        device: Device = current_device()
        if not is_chosen() and self._fastest in {row.target for row in self._programs}:
            with suppress(DeviceError):  # it was here once
                device = open_device(self._fastest)
        return device

    @property
    def note(self) -> str:
        """Under what its fastest device is kept: the same for all copies of this export."""
        return f"device of {self._key}"

    def prefer(self, device: str) -> None:
        """Run there from now on where the user chooses no device, in later processes, too."""
        self._fastest = device
        write_note(self.note, device)

    def _ready(self) -> Session:
        """The Program for the device, with its weights there."""
        device = self.device
        if self._session is None or self._session.device is not device:
            self._session = None
            self._session = self._loaded(device)
        return self._session

    def _loaded(self, device: Device) -> Session:
        fitting = [r for r in self._programs if r.target == device.name and set(r.features) <= device.features]
        if not fitting:
            targets = dict.fromkeys(row.target for row in self._programs)
            raise DeviceError(
                f"{self.path}: has no Program for device {device.name}; accepted are {', '.join(targets)}. "
                "Choose one with nf.use."
            )
        # the first of those that are for its code generator; if there are none, the first
        program = self._programs[min(fitting, key=lambda row: row.code_generator != device.code_generator)]
        session = device.load(program)
        wanted = {b.name for b in program.buffers if b.kind == "weight"}
        session.load_weights({name: t._bytes() for name, t in self._weights.items() if name in wanted})
        session.settle()  # this Model keeps the values
        return session

    def __repr__(self) -> str:
        rows = [("input", v) for v in self.inputs] + [("output", v) for v in self.outputs]
        cells = [("", "name", "shape", "dtype"), *((kind, v.name, _sizes(v.shape), v.dtype) for kind, v in rows)]
        wide = [max(len(row[i]) for row in cells) for i in range(4)]
        size = sum(t.nbytes for t in self._weights.values())
        targets = ", ".join(dict.fromkeys(row.target for row in self._programs))
        foot = f"{sum(t.size for t in self._weights.values()):,} weights, {size:,} bytes; {targets}"
        wide[3] += max(0, len(foot) - sum(wide) - 9)
        lines = ["│ " + " │ ".join(f"{text:<{w}}" for text, w in zip(row, wide, strict=True)) + " │" for row in cells]
        rule = ["─" * (w + 2) for w in wide]
        return "\n".join([
            f"Model {self.path}",
            f"┌{'┬'.join(rule)}┐", lines[0], f"├{'┼'.join(rule)}┤", *lines[1:], f"├{'┴'.join(rule)}┤",
            f"│ {foot:<{sum(wide) + 9}} │", f"└{'─' * (sum(wide) + 11)}┘",
        ])  # fmt: skip


def _sizes(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"


def _listed(values: tuple[Value, ...]) -> str:
    return ", ".join(map(str, values)) or "none"


def _borrowed(x: Any, wanted: DType) -> Tensor:
    """As a Tensor; a NumPy array of the wanted type that lies in order without a copy: it goes to a device at once."""
    kind = type(x)
    if (kind.__module__, kind.__name__) != ("numpy", "ndarray") or x.dtype != wanted.name:
        return asarray(x)
    return leaf(memoryview(x.reshape(-1).view("uint8")), x.shape, wanted)


def _array(t: Tensor) -> Any:
    try:
        return t.numpy()
    except ImportError:
        return t


def load(path: str | PathLike[str]) -> Model:
    """The model in a folder that `nf.export` wrote; every file is verified.

    errors  FormatError naming the place, if a file is missing, damaged, or does not fit the others
    """
    folder = Path(path)
    folder = folder.parent if folder.name == NAME else folder
    manifest = Manifest.decode(_read(folder, NAME), str(folder / NAME))
    weights, _ = decode_tensors(_read(folder, manifest.weights), str(folder / manifest.weights))
    programs: dict[ProgramFile, Program] = {}
    key = sha256()
    for row in manifest.programs:
        where = str(folder / row.file)
        try:
            data = _read(folder, row.file)
            program = decode(data)
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from None
        if (program.target, program.features) != (row.target, row.features):
            raise FormatError(
                f"{where}: is for {program.target} {program.features}; model.json says {row.target} {row.features}. "
                "Export the model again."
            )
        _check_fits(where, program, manifest, weights)
        programs[row] = program
        key.update(data)
    return Model(str(path), manifest, programs, weights, key.hexdigest())


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        if name == NAME and not folder.exists():
            message = f"load: no folder {str(folder)!r}; the folder here is {str(Path.cwd())!r}."
            raise FileNotFoundError(message) from None
        message = f"load: {folder} has no {name}; accepted is a folder that nf.export wrote. Export the model again."
        raise FormatError(message) from None
    except (NotADirectoryError, IsADirectoryError):
        message = f"load: {folder / name} is no file of a model; accepted is a folder that nf.export wrote."
        raise FormatError(message) from None


def _check_fits(where: str, program: Program, manifest: Manifest, weights: dict[str, Tensor]) -> None:
    """FormatError if a Program's inputs, outputs or weights are not those of the other files."""
    entry = next((e for e in program.entries if e.name == ENTRY), None)
    if entry is None:
        raise FormatError(f"{where}: has no entry {ENTRY!r}; accepted is a Program with one. Export the model again.")
    inputs, outputs = ("input", entry.inputs, manifest.inputs), ("output", entry.outputs, manifest.outputs)
    for kind, numbers, values in (inputs, outputs):
        there, said = [_about(program.buffers[n]) for n in numbers], [(v.dtype, v.shape) for v in values]
        if there != said:
            raise FormatError(f"{where}: the {kind}s are {there}; model.json says {said}. Export the model again.")
    for buffer in program.buffers:
        if buffer.kind == "weight":
            t = weights.get(buffer.name)
            found = None if t is None else (t.dtype.name, t.shape)
            if found != _about(buffer):
                raise FormatError(
                    f"{where}: the weight {buffer.name!r:.60} is {_about(buffer)}; {manifest.weights} has {found}. "
                    "Export the model again."
                )


def _about(buffer: Buffer) -> tuple[str, tuple[int, ...]]:
    return buffer.dtype, tuple(buffer.shape)
