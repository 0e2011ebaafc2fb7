"""What each operation means: tables of records, one family per file. Importing this fills the registry."""

from ..op import REGISTRY
from . import arithmetic, contraction, indexing, mathematics, movement, reduce, source

__all__ = ["SHIPPED", "arithmetic", "contraction", "indexing", "mathematics", "movement", "reduce", "source"]

SHIPPED = dict(REGISTRY)  # the operations of this package; what others register may be another one under the same name
