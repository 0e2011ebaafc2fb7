"""Nested lists, tuples and dicts as flat lists of leaves, and back."""

from typing import Any

__all__ = ["flatten_tree", "map_tree", "unflatten_tree"]


def flatten_tree(tree: Any) -> tuple[list[Any], Any]:
    """The leaves in order (dicts by insertion), and the structure to put them back with, to which None belongs."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Any:
    if tree is None:
        return None
    if isinstance(tree, dict):
        return ("dict", tuple([(key, _flatten(value, leaves)) for key, value in tree.items()]))
    if isinstance(tree, (list, tuple)):
        if hasattr(tree, "_fields"):
            return (type(tree), tuple([_flatten(v, leaves) for v in tree]))
        return ("list" if isinstance(tree, list) else "tuple", tuple([_flatten(v, leaves) for v in tree]))
    leaves.append(tree)
    return "leaf"


def unflatten_tree(structure: Any, leaves: Any) -> Any:
    """The tree of that structure with these leaves."""
    return _unflatten(structure, iter(leaves))


def _unflatten(structure: Any, leaves: Any) -> Any:
    if structure is None:
        return None
    if structure == "leaf":
        return next(leaves)
    kind, parts = structure
    if kind == "dict":
        return {key: _unflatten(part, leaves) for key, part in parts}
    values = [_unflatten(part, leaves) for part in parts]
    if kind == "list":
        return values
    return tuple(values) if kind == "tuple" else kind(*values)


def map_tree(function: Any, tree: Any, *others: Any) -> Any:
    """The tree with the function applied to each leaf (and to the leaves of other trees of the same structure)."""
    leaves, structure = flatten_tree(tree)
    rest = [flatten_tree(other)[0] for other in others]
    return unflatten_tree(structure, [function(*group) for group in zip(leaves, *rest, strict=True)])
