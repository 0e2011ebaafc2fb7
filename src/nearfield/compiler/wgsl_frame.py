"""Kernel -> a whole WGSL module: the claims in order, then the frame that can write every kernel."""

from collections.abc import Collection

from .choice import Choices
from .kernel import Kernel
from .wgsl_access import declared
from .wgsl_chain import spell_chain
from .wgsl_columns import spell_columns
from .wgsl_matvec import spell_matvec
from .wgsl_points import spell_points
from .wgsl_rows import spell_rows
from .wgsl_scatter import spell_scatter
from .wgsl_tile import spell_tile
from .wgsl_vectors import spell_vectors

__all__ = ["spell_kernel"]


def spell_kernel(kernel: Kernel, choices: Choices, reads: Collection[int] = ()) -> tuple[str, tuple[int, int, int]]:
    """The WGSL text, and the workgroups to run; `reads` are arguments that may be declared as only read."""
    found = spell_matvec(kernel, choices)
    if found is None:
        tile = spell_tile(kernel, choices)
        if tile is not None:
            return tile  # a driver's code for factors that are only read is slower: ResNet-50 takes 5 % longer
        found = (
            spell_chain(kernel)
            or spell_scatter(kernel)
            or spell_columns(kernel)
            or spell_rows(kernel)
            or spell_vectors(kernel)
            or spell_points(kernel)
        )
    return declared(found[0], reads), found[1]
