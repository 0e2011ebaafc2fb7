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
from .build import Built, Target, build

__all__ = ["cached_build", "program_key"]

LOOKING = ("NEARFIELD_SHOW", "NEARFIELD_DEBUG")  # somebody wants to see the stages


def cached_build(
    graph: Graph,
    target: Target,
    givable: frozenset[int] = frozenset(),
    weights: dict[int, str] | None = None,
    names: dict[str, list[str]] | None = None,
    entry: str = "main",
) -> Built:
    """What `build` gives; from a file if one was made from the same, by the same compiler."""
    if any(os.environ.get(name) for name in LOOKING) or not all(_is_shipped(line.op) for line in graph.lines):
        return build(graph, target, givable, weights, names, entry)
    key = program_key(graph, target, (sorted(givable), sorted((weights or {}).items()), names, entry))
    found = cache().get("program", key)
    if found is not None:
        try:
            return _read(found)
        except (FormatError, ValueError, struct.error):
            pass  # it is replaced
    built = build(graph, target, givable, weights, names, entry)
    cache().put("program", key, _written(built))
    return built


def program_key(graph: Graph, target: Target, more: Any = None) -> str:
    """A text that differs wherever the Program may."""
    made_for = (target.name, sorted(target.features), target.bindings, sorted(target.choices.chosen.items()))
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
    results = json.dumps(built.results).encode()
    return struct.pack("<I", len(results)) + results + encode(built.program)


def _read(data: bytes) -> Built:
    (length,) = struct.unpack_from("<I", data)
    results = json.loads(data[4 : 4 + length])
    return Built(decode(data[4 + length :]), tuple((str(kind), int(n)) for kind, n in results))
