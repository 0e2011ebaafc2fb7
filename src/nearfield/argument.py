"""Arguments: one that cannot be meant is refused where it is given, not where it does harm."""

from math import inf
from typing import Any

from .errors import ArgumentError

__all__ = ["callables", "instance", "real", "whole", "wholes"]

PLAIN = (int, float, str, bytes, type(None))


def whole(who: str, least: int = 1, **given: Any) -> None:
    """Each argument is a whole number, not below `least`.

    errors   ArgumentError for what is no whole number, and for one that is too small
    """
    for name, value in given.items():
        _whole(who, name, value, least, f"whole numbers from {least}")


def wholes(who: str, rank: int, least: int = 1, **given: Any) -> None:
    """Each argument is one whole number, or a list or tuple of `rank` of them; of any number of them for rank 0.

    errors   as `whole`, and for another number of them
    """
    for name, value in given.items():
        accepted = f"a whole number from {least}, or {rank or 'several'} of them"
        if isinstance(value, (list, tuple)):
            if len(value) != (rank or len(value)):
                raise ArgumentError(_words(who, name, value, accepted))
            for part in value:
                _whole(who, name, part, least, accepted)
        else:
            _whole(who, name, value, least, accepted)


def _whole(who: str, name: str, value: Any, least: int, accepted: str) -> None:
    if not hasattr(value, "__index__") or isinstance(value, bool):
        raise ArgumentError(_words(who, name, value, accepted))
    if value < least:
        raise ArgumentError(_words(who, name, value, accepted))


def real(who: str, low: float = -inf, high: float = inf, *, below: bool = False, **given: Any) -> None:
    """Each argument is a number from `low` to `high`; `below` leaves `high` itself out.

    errors   ArgumentError for what is no number, out of range or NaN
    """
    accepted = "numbers"
    if low > -inf:
        accepted += f" from {low:g}"
    if high < inf:
        accepted += f" to {'below ' if below else ''}{high:g}"
    for name, value in given.items():
        if not hasattr(value, "__float__") or isinstance(value, bool) or getattr(value, "shape", ()) != ():
            raise ArgumentError(_words(who, name, value, accepted))
        if not low <= value <= high or (below and value == high):
            raise ArgumentError(_words(who, name, value, accepted))


def instance(who: str, kind: type | tuple[type, ...], accepted: str, **given: Any) -> None:
    """Each argument is of the kind; `accepted` says it in words.

    errors   ArgumentError
    """
    for name, value in given.items():
        if not isinstance(value, kind):
            raise ArgumentError(_words(who, name, value, accepted))


def callables(who: str, accepted: str, **given: Any) -> None:
    """Each argument can be called; `accepted` says with what.

    errors   ArgumentError
    """
    for name, value in given.items():
        if not callable(value):
            raise ArgumentError(_words(who, name, value, accepted))


def _words(who: str, name: str, value: Any, accepted: str) -> str:
    parts = value if isinstance(value, (list, tuple)) else (value,)
    plain = len(parts) < 9 and all(isinstance(part, PLAIN) for part in parts)
    shown = repr(value) if plain else f"of type {type(value).__name__}"
    return f"{who}: {name} is {shown}; accepted {'is' if accepted.startswith(('a ', 'an ')) else 'are'} {accepted}."
