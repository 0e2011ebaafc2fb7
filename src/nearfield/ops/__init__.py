"""What each operation means: tables of records, one family per file. Importing this fills the registry."""

from . import arithmetic, contraction, indexing, mathematics, movement, reduce, source

__all__ = ["arithmetic", "contraction", "indexing", "mathematics", "movement", "reduce", "source"]
