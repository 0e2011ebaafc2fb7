"""C types by name, looked up quickly.

wgpu-py names types in C ("WGPULimits *"), and cffi hands each name that it sees for the first time to a parser of C,
behind all of the header's typedefs: 17 ms for a name, 0.8 s for the 45 names of a first run. Here a name, a pointer
to it or an array of it is looked up, and for all other types the parser gets only the typedefs that are mentioned.
"""

import re
from contextlib import suppress
from functools import cache as once
from typing import Any

__all__ = ["hasten", "quicken"]

PLAIN = re.compile(r"(\w+) *(\*|\[\])? *")


@once
def hasten() -> None:
    """Quicken wgpu-py's own look-ups."""
    with suppress(ImportError, AttributeError):
        from wgpu.backends.wgpu_native._ffi import ffi

        quicken(ffi)


def quicken(ffi: Any) -> bool:
    """Let a `cffi.FFI` look types up quickly. False, and nothing is changed, if its parser is not the one we know."""
    parser: Any = getattr(ffi, "_parser", None)
    slow: Any = getattr(parser, "parse_type_and_quals", None)
    if slow is None or not isinstance(getattr(parser, "_declarations", None), dict):
        return False
    from cffi import model  # type: ignore[import-untyped]

    def named(name: str, known: dict[str, Any]) -> Any:
        if name in model.PrimitiveType.ALL_PRIMITIVE_TYPES:
            return model.PrimitiveType(name), 0
        return known.get(f"typedef {name}")

    def parse(text: str) -> Any:  # cffi holds its lock around this
        known = parser._declarations
        plain = PLAIN.fullmatch(text)
        found = named(plain[1], known) if plain else None
        if plain and found:
            type, qualifiers = found
            if plain[2] == "*":
                return parser._get_type_pointer(type, qualifiers), 0
            return (model.ArrayType(type, None) if plain[2] else type), qualifiers
        mentioned = set(re.findall(r"\w+", text))
        parser._declarations = {key: value for key, value in known.items() if key.rpartition(" ")[2] in mentioned}
        try:
            return slow(text)
        finally:
            parser._declarations = known

    parser.parse_type_and_quals = parse
    return True
