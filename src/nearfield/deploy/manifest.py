"""model.json: what a model's folder holds (docs/spec/program.md, section 6)."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..dtype import DTYPES
from ..errors import FormatError

__all__ = ["ENTRY", "NAME", "Manifest", "ProgramFile", "Value"]

NAME = "model.json"
ENTRY = "predict"  # what a model's Programs call the entry that computes its outputs
FORMAT, VERSION = "nearfield-model", 1
OUTSIDE = re.compile(r"^[/\\]|\.\.|[:\\]")


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: its name, shape and element type."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """One of the Programs, all of which compute the same: its file, and what a device must be and have to run it.

    code_generator  of the devices that run it fastest, as `Device` has it; others run it, too
    """

    file: str
    target: str
    features: tuple[str, ...]
    code_generator: str = ""

    def encode(self) -> str:
        """As JSON."""
        found = {"file": self.file, "target": self.target, "features": self.features}
        return json.dumps(found | ({"code_generator": self.code_generator} if self.code_generator else {}))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of model.json."""

    programs: tuple[ProgramFile, ...]
    weights: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    labels: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """Every file of the folder."""
        return {NAME, self.weights, *(row.file for row in self.programs)}

    def encode(self) -> str:
        """The file's text, to be read by people too.

        errors  DTypeError if the metadata is nothing that JSON can hold
        """

        def value(v: Value) -> str:
            return json.dumps({"name": v.name, "dtype": v.dtype, "shape": v.shape}, ensure_ascii=False)

        def rows(texts: list[str]) -> str:
            return "[" + ",\n    ".join(texts) + "]"

        parts = {
            "format": json.dumps(FORMAT),
            "version": str(VERSION),
            "programs": rows([p.encode() for p in self.programs]),
            "weights": json.dumps(self.weights),
            "inputs": rows([value(v) for v in self.inputs]),
            "outputs": rows([value(v) for v in self.outputs]),
            "labels": json.dumps(self.labels, ensure_ascii=False),
            "metadata": json.dumps(self.metadata, ensure_ascii=False, allow_nan=False),
        }
        return "{\n  " + ",\n  ".join(f'"{key}": {text}' for key, text in parts.items()) + "\n}\n"

    @staticmethod
    def decode(data: bytes, where: str) -> "Manifest":
        """What a file says.

        errors  FormatError naming the place, for anything that is not as it must be
        """
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise FormatError(f"{where}: is not JSON. The file is damaged; export the model again.") from None
        return _Reader(where).manifest(found)


class _Reader:
    def __init__(self, where: str) -> None:
        self.where = where

    def wrong(self, place: str, value: object, accepted: str) -> FormatError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return FormatError(f"{self.where}: {place} is {shown}; accepted is {accepted}. Export the model again.")

    def manifest(self, found: Any) -> Manifest:
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise self.wrong("format", found.get("format") if isinstance(found, dict) else found, repr(FORMAT))
        if type(found.get("version")) is not int or found["version"] != VERSION:
            raise FormatError(
                f"{self.where}: version is {found.get('version')!r:.60}; accepted is {VERSION}. "
                "Update Nearfield, or export again."
            )
        programs = tuple(self.program(f"programs[{n}]", row) for n, row in enumerate(self.items(found, "programs")))
        if not programs:
            raise self.wrong("programs", [], "at least one")
        labels = tuple(self.text(f"labels[{n}]", label) for n, label in enumerate(self.items(found, "labels", [])))
        metadata = found.get("metadata", {})
        if not isinstance(metadata, dict):
            raise self.wrong("metadata", metadata, "an object")
        weights = self.file("weights", found.get("weights"))
        inputs, outputs = self.values(found, "inputs"), self.values(found, "outputs")
        return Manifest(programs, weights, inputs, outputs, labels, metadata)

    def items(self, found: dict[str, Any], key: str, default: Any = None) -> list[Any]:
        rows = found.get(key, default)
        if not isinstance(rows, list):
            raise self.wrong(key, rows, "a list")
        return rows

    def text(self, place: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.wrong(place, value, "text")
        return value

    def file(self, place: str, value: object) -> str:
        name = self.text(place, value)
        if not name or OUTSIDE.search(name):
            raise self.wrong(place, value, "the relative name of a file in the folder")
        return name

    def program(self, place: str, row: Any) -> ProgramFile:
        if not isinstance(row, dict):
            raise self.wrong(place, row, "an object")
        features = [self.text(f"{place}.features", name) for name in self.items(row, "features")]
        file = self.file(f"{place}.file", row.get("file"))
        target = self.text(f"{place}.target", row.get("target"))
        generator = self.text(f"{place}.code_generator", row.get("code_generator", ""))
        return ProgramFile(file, target, tuple(features), generator)

    def values(self, found: dict[str, Any], key: str) -> tuple[Value, ...]:
        made = tuple(self.value(f"{key}[{n}]", row) for n, row in enumerate(self.items(found, key)))
        if len({v.name for v in made}) != len(made):
            raise self.wrong(key, [v.name for v in made], "each name once")
        return made

    def value(self, place: str, row: Any) -> Value:
        if not isinstance(row, dict):
            raise self.wrong(place, row, "an object")
        shape = self.items(row, "shape")
        if not all(type(n) is int and 0 <= n < 1 << 53 for n in shape) or len(shape) > 16:
            raise self.wrong(f"{place}.shape", shape, "at most 16 sizes")
        if row.get("dtype") not in tuple(DTYPES):
            raise self.wrong(f"{place}.dtype", row.get("dtype"), f"one of {', '.join(DTYPES)}")
        return Value(self.text(f"{place}.name", row.get("name")), tuple(shape), row["dtype"])
