"""Choices: which of several ways a kernel is made. By default one that is known to be good; where `nf.tune` has
measured on a device, the one that was fastest there.

A compiler stage that knows several ways asks

    tile = target.choices.choose("wgsl tile", (m, n, k, "float32"), ((64, 64), (32, 32)), default=(64, 64))

and makes what it is told. All candidates give the same results, up to rounding. Without measurements the answer is the
default, so that code depends on nothing but the Graph and the target.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

__all__ = ["Choices"]

T = TypeVar("T")


class Choices:
    """Measured winners, and what builds that were given this object have asked for.

    chosen  question -> winner, both as text
    asked   question -> all candidates as text, the default first; only with `note`, for who wants to measure them
    """

    __slots__ = ("asked", "chosen", "note")

    def __init__(self, chosen: Mapping[str, str] | None = None, *, note: bool = False) -> None:
        self.chosen: dict[str, str] = dict(chosen or {})
        self.asked: dict[str, tuple[str, ...]] = {}
        self.note = note

    def choose(self, kind: str, key: object, candidates: Sequence[T], default: T) -> T:
        """The candidate that was fastest, or the default if that is not known.

        kind        what is chosen, such as "wgsl tile"
        key         what the speed depends on: shapes, element types; its text must tell two apart
        candidates  each with a text of its own (strings, numbers, tuples of them); one that is no longer among them
                    is not chosen
        """
        question = f"{kind} {key}"
        if self.note:
            self.asked[question] = (str(default), *(str(c) for c in candidates if c != default))
        winner = self.chosen.get(question)
        return default if winner is None else next((c for c in candidates if str(c) == winner), default)
