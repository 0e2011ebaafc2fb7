"""What a Program is made for, and what comes out: all of the compiler that a Program found ready needs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..program.program import Kernel, Program
from .choice import Choices

__all__ = ["Built", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What the code is made for.

    name      "wasm" or "webgpu"
    features  of docs/spec/program.md, those that may be used
    bindings  the most arguments of one kernel
    largest   bytes of the largest array that a kernel may have as an argument; WebGPU's own limit unless given
    choices   which of several ways a kernel is made, where that was measured
    code_generator  what makes machine code of WebAssembly, so that kernels are shaped for it: "" is what browsers have,
              "cranelift" wasmtime's; all run everywhere
    spelled   is given each kernel that is text as soon as it is known, so that it can be compiled meanwhile
    """

    name: str
    features: frozenset[str] = frozenset()
    bindings: int = 8
    largest: int = 1 << 27
    code_generator: str = ""
    choices: Choices = field(default_factory=Choices)
    spelled: Callable[[Kernel], None] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Built:
    """A Program, and where each output of the Graph is found when its entry has run.

    results  for each of the Graph's outputs ("input", n) or ("output", n)
    once     a Program whose outputs are further inputs of `program`, after the Graph's: it need run only when the
             inputs at the positions `feeds` have changed, which are all that it takes
    """

    program: Program
    results: tuple[tuple[str, int], ...]
    once: Program | None = None
    feeds: tuple[int, ...] = ()
