"""Which lines of a Graph are planes: large products of rows with rows, such as attention's scores, better made twice
than stored.

Everything between them and what folds or multiplies them again is made anew in each kernel that needs it (chain.py), so
that memory grows with the length of a text and not with its square.
"""

from dataclasses import dataclass, field
from math import prod

from ..graph.graph import Graph, Line
from ..op import REGISTRY

__all__ = ["Planes", "planes_of"]

LONGEST = 128  # terms of a score: more, and making it again costs more than storing it
TILE = 64  # rows that a workgroup makes, and of those how many keep a large device busy
BUSY = 384
SHORT = 128  # scores of a row: one workgroup makes so few in less time than starting two more kernels takes


@dataclass(slots=True)
class Planes:
    """The decisions.

    inline   lines that are never stored
    results  lines that fold or multiply planes, each with a kernel of its own
    """

    inline: set[int] = field(default_factory=set)
    results: set[int] = field(default_factory=set)


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.lines, self.outputs = graph.lines, set(graph.outputs)
        self.users = graph.users()
        self.of_scores: set[int] = set()  # scores, and what is made of them one by one
        for i, line in enumerate(graph.lines):
            above = {a for a in line.args if self.lines[a].shape == line.shape} & self.of_scores
            if self.is_score(i) or (above and self.family(i) == "elementwise"):
                self.of_scores.add(i)

    def family(self, i: int) -> str:
        """Of the line's operation."""
        return "input" if self.lines[i].op == "input" else REGISTRY[self.lines[i].op].family

    def is_score(self, i: int) -> bool:
        """Whether the line is products of rows with rows, of which there are many more than elements of the rows."""
        line = self.lines[i]
        if line.op != "einsum" or line.dtype.name not in ("float32", "float16") or len(line.shape) < 2:
            return False
        a, b, out = _letters(line)
        summed = [c for c in a if c in b and c not in out]
        lone = [c for c in out if (c in a) != (c in b)]
        sizes = [prod(self.lines[x].shape) for x in line.args]
        return (
            len(summed) == 1
            and len(a) == len(b) == len(out)
            and set(out[-2:]) == set(lone)
            and self.lines[line.args[0]].shape[a.index(summed[0])] <= LONGEST
            and prod(line.shape) >= max(sizes)
        )

    def plane(self, score: int) -> tuple[set[int], set[int]] | None:
        """What is made of scores one by one, and what folds or multiplies it; None if something else uses it."""
        shape = self.lines[score].shape
        inline, results, stack = set[int](), set[int](), [score]
        while stack:
            i = stack.pop()
            if i in inline:
                continue
            inline.add(i)
            stack += [a for a in self.lines[i].args if self.is_made_of_scores(a, shape)]
            for user in self.users[i]:
                if self.family(user) == "elementwise" and self.lines[user].shape == shape:
                    stack.append(user)
                elif self.folds(user, shape) or self.multiplies(user, i):
                    results.add(user)
                else:
                    return None
        return None if inline & (self.outputs | results) else (inline, results)

    def is_made_of_scores(self, i: int, shape: tuple[int, ...]) -> bool:
        """Whether an argument belongs to the plane, though it is not made of the score that this began with."""
        return self.lines[i].shape == shape and i in self.of_scores

    def folds(self, i: int, shape: tuple[int, ...]) -> bool:
        """Whether a line folds the rows of a plane."""
        return self.lines[i].op in ("sum", "max", "min") and dict(self.lines[i].attrs)["axes"] == (len(shape) - 1,)

    def multiplies(self, i: int, plane: int) -> bool:
        """Whether a line is products of a plane's rows or columns with something else."""
        line = self.lines[i]
        if line.op != "einsum" or line.args.count(plane) != 1:
            return False
        a, b, out = _letters(line)
        mine, other = (a, b) if line.args[0] == plane else (b, a)
        summed = [c for c in mine if c in other and c not in out]
        lone = [c for c in other if c not in mine]
        return len(a) == len(b) == len(out) and len(summed) == len(lone) == 1 and summed[0] in mine[-2:]

    def softmax(self, inline: set[int], results: set[int]) -> set[int] | None:
        """All lines of a softmax that is multiplied once and used nowhere else, folds included; None if it is more."""
        products = {i for i in results if self.lines[i].op == "einsum"}
        folds = results - products
        if len(products) != 1 or sorted(self.lines[i].op for i in folds) != ["max", "sum"] or folds & self.outputs:
            return None
        every, stack = set(inline), list(folds)
        while stack:
            i = stack.pop()
            if i not in every:
                if i in self.outputs or i in products:
                    return None
                every.add(i)
                stack += self.users[i]
        return every


def _letters(line: Line) -> tuple[str, str, str]:
    left, out = dict(line.attrs)["spec"].split("->")
    a, b = left.split(",")
    return a, b, out


def planes_of(graph: Graph, largest: int) -> Planes:
    """The planes that are better made again: of a softmax that is multiplied once, and others if they must be.

    largest  bytes of the largest buffer: training, which makes each score six times, stores what it can
    """
    finder, found = _Finder(graph), Planes()
    for i, line in enumerate(graph.lines):
        if i in found.inline or not finder.is_score(i):
            continue
        made = finder.plane(i)
        if made is None:
            continue
        inline, results = made
        softmax = finder.softmax(inline, results)
        *batch, rows, row = line.shape
        if softmax is not None and (row <= SHORT or prod(batch) * -(-rows // TILE) >= BUSY):
            inline, results = softmax, results - softmax
        elif prod(line.shape) * line.dtype.itemsize <= largest:
            continue
        found.inline |= inline
        found.results |= results
    return found
