"""`build`, with Programs kept on disk: what was compiled once need not be compiled by the next process."""

import json
import os
import struct
from functools import cache as once
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..graph.graph import Graph
from ..op import REGISTRY
from ..ops import SHIPPED
from ..program.cache import cache
from ..program.codec import decode, encode
from .target import Built, Target

__all__ = ["cached_build", "program_key"]

LOOKING = ("NEARFIELD_SHOW", "NEARFIELD_DEBUG")  # somebody wants to see the stages


def cached_build(
    graph: Graph,
    target: Target,
    givable: frozenset[int] = frozenset(),
    weights: dict[int, str] | None = None,
    names: dict[str, list[str]] | None = None,
    entry: str = "main",
    steady: frozenset[int] = frozenset(),
) -> Built:
    """What `build` gives, or with `steady` `build_steady`; from a file if the same compiler has made it before."""

    def made() -> Built:
        from .build import build, build_steady  # in a page, its import takes longer than all that is done here

        if steady:
            return build_steady(graph, target, givable, steady)
        return build(graph, target, givable, weights, names, entry)

    looking = any(os.environ.get(name) for name in LOOKING)
    if looking or cache().folder is None or not all(_is_shipped(line.op) for line in graph.lines):
        return made()
    key = program_key(graph, target, (sorted(givable), sorted((weights or {}).items()), names, entry, sorted(steady)))
    found = cache().get("program", key)
    if found is not None:
        try:
            return _read(found)
        except (FormatError, ValueError, struct.error):
            pass  # it is replaced
    built = made()
    cache().put("program", key, _written(built))
    return built


def program_key(graph: Graph, target: Target, more: Any = None) -> str:
    """A text that differs wherever the Program may."""
    made_for = (
        target.name,
        sorted(target.features),
        target.bindings,
        target.largest,
        target.code_generator,
        sorted(target.choices.chosen.items()),
    )
    return "\n".join((_compiler(), repr(made_for), repr(more), str(graph)))


def _is_shipped(op: str) -> bool:
    return op == "input" or REGISTRY.get(op) is SHIPPED.get(op, "unknown")


@once
def _compiler() -> str:
    """A hash of the sources that Programs depend on."""
    root = Path(__file__).resolve().parent.parent
    files = [p for room in ("compiler", "graph", "ops", "program") for p in (root / room).rglob("*.py")]
    files += [root / f"{name}.py" for name in ("dtype", "index", "op", "scalar", "shape")]
    total = sha256()
    for path in sorted(files):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def _written(built: Built) -> bytes:
    once = b"" if built.once is None else encode(built.once)
    about = json.dumps([built.results, built.feeds]).encode()
    return struct.pack("<II", len(about), len(once)) + about + once + encode(built.program)


def _read(data: bytes) -> Built:
    start = struct.calcsize("<II")
    about, once = (start + length for length in struct.unpack_from("<II", data))
    results, feeds = json.loads(data[start:about])
    program, first = data[about + once - start :], data[about : about + once - start]
    return Built(
        decode(program),
        tuple([(str(kind), int(n)) for kind, n in results]),
        decode(first) if first else None,
        tuple(map(int, feeds)),
    )
