"""Kernel -> a whole WGSL module: the claims in order, then the frame that can write every kernel."""

from .choice import Choices
from .kernel import Kernel
from .wgsl_chain import spell_chain
from .wgsl_columns import spell_columns
from .wgsl_matvec import spell_matvec
from .wgsl_points import spell_points
from .wgsl_rows import spell_rows
from .wgsl_scatter import spell_scatter
from .wgsl_tile import spell_tile
from .wgsl_vectors import spell_vectors

__all__ = ["spell_kernel"]


def spell_kernel(kernel: Kernel, choices: Choices) -> tuple[str, tuple[int, int, int]]:
    """The WGSL text, and the workgroups to run."""
    return (
        spell_matvec(kernel, choices)
        or spell_tile(kernel, choices)
        or spell_chain(kernel)
        or spell_scatter(kernel)
        or spell_columns(kernel)
        or spell_rows(kernel)
        or spell_vectors(kernel)
        or spell_points(kernel)
    )
