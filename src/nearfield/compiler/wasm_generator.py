"""What makes machine code of WebAssembly, as far as tiles of contractions are shaped for it.

V8 keeps instructions in the order in which they are written, and each multiply-add replaces its sum. Cranelift, which
is in wasmtime, does not: what computes without touching memory moves down to where its block of code ends, behind all
loads of that block, whose results wait in registers; a multiply-add replaces one of its *factors*, of which a copy is
made if it is needed again; and a sum that has to wait on the stack takes its multiply-adds twice as long. So tiles for
Cranelift are smaller, and their code is in short blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CRANELIFT", "V8", "CodeGenerator", "generator_of"]


@dataclass(frozen=True, slots=True, eq=False)
class CodeGenerator:
    """A compiler of WebAssembly.

    rows   of a tile by the kind of its steps ("turned" flips signs of bytes): so many that all stays in registers
    block  rows of a tile after which a block of code has to end; 0 where the order of instructions is kept
    """

    rows: Mapping[str, int]
    block: int


# the sums, two vectors of b, one element of a and what else a step needs (a product, a mask) fit V8's fifteen registers
V8 = CodeGenerator({"fused": 6, "plain": 5, "dot": 6, "turned": 5, "quantised": 4}, block=0)
CRANELIFT = CodeGenerator(dict.fromkeys(V8.rows, 4), block=2)


def generator_of(name: str) -> CodeGenerator:
    """The generator that a Target names."""
    return {"": V8, "cranelift": CRANELIFT}[name]
