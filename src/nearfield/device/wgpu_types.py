"""C types by name, looked up quickly.

wgpu-py names types in C ("WGPULimits *"), and cffi hands each name that it sees for the first time to a parser of C,
behind all of the header's typedefs: 17 ms for a name, 0.8 s for the 45 names of a first run. Here the parser gets the
typedefs that the name mentions.
"""

import re
from contextlib import suppress
from functools import cache as once
from typing import Any

__all__ = ["hasten", "quicken"]


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

    def parse(text: str) -> Any:  # cffi holds its lock around this
        known = parser._declarations
        mentioned = set(re.findall(r"\w+", text))
        parser._declarations = {key: value for key, value in known.items() if key.rpartition(" ")[2] in mentioned}
        try:
            return slow(text)
        finally:
            parser._declarations = known

    parser.parse_type_and_quals = parse
    return True
