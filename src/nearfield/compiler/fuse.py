"""Which lines of a Graph are stored in memory, and which are computed inside the kernel that uses them.

Elementwise work and movement are inlined into their consumer, unless several kernels would repeat expensive work. A
contraction or reduction is inlined only into elementwise work on its own result (bias, activation), or, over whole
rows, into work on these rows (softmax, norms). Every other contraction or reduction is stored.
"""

from dataclasses import dataclass, field
from math import prod

from ..graph.graph import Graph, Line, constant_of
from ..op import REGISTRY
from .group import group
from .planes import Planes
from .prepare import Prepared

__all__ = ["Fusion", "fuse"]

HEAVY = {"contraction", "reduction"}
HEAVY_OPS = {"put_add", "put_along"}
SPREADING = {"take", "take_along", "windows"}  # may read one element many times
BIJECTIVE = frozenset({"reshape", "permute"})
CHEAP = 3  # operations worth repeating rather than storing
DEEP = 48  # operations inlined one below the other: Python's stack ends where they are written
FUNCTION = 8  # operations that a function, such as exp, is in that count
CHEAP_OPS = {
    "abs", "add", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "cast", "equal", "greater", "greater_equal", "isnan", "less", "less_equal", "logical_and",
    "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "multiply", "negative", "not_equal", "sign",
    "square", "subtract", "where",
}  # fmt: skip
GROUP_ROWS, GROUP = 8, 128  # rows, and terms of each sum, of which further sums are made at once
NARROW = 3  # times the bytes: what is so much wider than what it is made of is never stored for a contraction to read


@dataclass(slots=True)
class Fusion:
    """The decisions.

    stored  lines that are in memory: outputs and what several kernels share (inputs not included)
    path    for a stored line whose kernel computes a contraction or reduction first: the lines from that one to it
    groups  lists of stored lines that one kernel makes together, in an order in which they can run
    """

    stored: set[int] = field(default_factory=set)
    path: dict[int, list[int]] = field(default_factory=dict)
    groups: list[list[int]] = field(default_factory=list)


class _Fuser:
    def __init__(self, graph: Graph, bindings: int, kept: set[int], few: bool, planes: Planes) -> None:
        self.graph, self.bindings, self.few, self.planes = graph, bindings, few, planes
        self.lines = graph.lines
        self.families = ["input" if line.op == "input" else REGISTRY[line.op].family for line in self.lines]
        self.rows: dict[tuple[int, tuple[int, ...], tuple[int, ...]], bool] = {}
        self.users = graph.users()
        self.memory = {i for i, line in enumerate(self.lines) if line.op == "input"}
        self.outputs = set(graph.outputs) - self.memory
        self.stored: set[int] = self.outputs | kept
        self.homes: list[set[int]] = [set() for _ in self.lines]
        self.anchors: dict[int, int] = {}
        self.hot: list[int] = [0 for _ in self.lines]

    # -- facts about lines ---------------------------------------------------------------------------------------------

    def family(self, i: int) -> str:
        return self.families[i]

    def heavy(self, i: int) -> bool:
        return self.family(i) in HEAVY or self.lines[i].op in HEAVY_OPS

    def weights(self) -> list[int]:
        """Operations per element that inlining each line costs, if nothing below it were stored."""
        weight: list[int] = []
        for line in self.lines:
            below = sum(weight[a] for a in line.args if not self.heavy(a))
            weight.append(min(below + self.own_weight(line), 10**6))
        return weight

    def own_weight(self, line: Line) -> int:
        if line.op == "cast":
            rounds = line.dtype.name == "float16" and self.lines[line.args[0]].dtype.itemsize > 2
            return FUNCTION if rounds else 0  # which a store would do for nothing
        if line.op == "input" or REGISTRY[line.op].family in ("movement", "source"):
            return 0
        return 1 if line.op in CHEAP_OPS else FUNCTION

    # -- whole rows ----------------------------------------------------------------------------------------------------

    def trailing(self, i: int) -> tuple[int, ...] | None:
        """The reduced axes, if line i folds the last axes of its input and the rows are worth one kernel."""
        line = self.lines[i]
        if self.family(i) != "reduction" or line.op == "unwindow":
            return None
        attrs = dict(line.attrs)
        axes = attrs.get("axes") or ((attrs["axis"],) if "axis" in attrs else ())
        shape = self.lines[line.args[0]].shape
        if not axes or tuple(axes) != tuple(range(len(shape) - len(axes), len(shape))):
            return None
        row = prod(shape[a] for a in axes)
        return tuple(axes) if row <= 4096 or prod(shape) // max(row, 1) >= 256 else None

    def covers_rows(self, i: int, axes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether every use of line i runs over whole rows: elementwise, or a fold over the same axes.

        Asked only of lines whose users have been decided on, so that the answer stays.
        """
        key = i, axes, shape
        if key not in self.rows:
            self.rows[key] = self.uses_cover_rows(i, axes, shape)
        return self.rows[key]

    def uses_cover_rows(self, i: int, axes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        for user in self.users[i]:
            line = self.lines[user]
            if self.family(user) == "elementwise" and line.shape == shape:
                if user not in self.stored and not self.covers_rows(user, axes, shape):
                    return False
            elif self.trailing(user) != axes or self.lines[line.args[0]].shape != shape:
                return False
        return True

    def row_uses(self, i: int, axes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        """Whether a row's result is only ever spread over that row again."""
        if i in self.outputs or not self.users[i]:
            return False
        for user in self.users[i]:
            line = self.lines[user]
            if (
                line.op == "expand"
                and line.shape == shape
                and self.lines[i].shape == tuple(1 if a in axes else n for a, n in enumerate(shape))
            ):
                if user in self.stored or not self.covers_rows(user, axes, shape):
                    return False
            elif (self.family(user) == "elementwise" or line.op == "reshape") and prod(line.shape) == prod(
                self.lines[i].shape
            ):
                if user in self.stored or not self.row_uses(user, axes, shape):
                    return False
            else:
                return False
        return True

    # -- the decision, consumers first ---------------------------------------------------------------------------------

    def run(self) -> Fusion:
        weight = self.weights()
        for i in reversed(range(len(self.lines))):
            if i in self.memory or not (self.users[i] or i in self.outputs):
                continue
            for user in self.users[i]:
                self.homes[i] |= {user} if user in self.stored else self.homes[user]
            if i not in self.stored and self.must_store(i, weight[i]):
                self.stored.add(i)
        self.limit()
        fusion = Fusion(self.stored)
        for root in sorted(self.stored):
            path = self.path_of(root)
            if path:
                fusion.path[root] = path
        return fusion

    def must_store(self, i: int, weight: int) -> bool:
        if self.family(i) == "source" or i in self.planes.inline:
            return False
        if i in self.planes.results:
            return not self.anchor(i)
        if self.heavy(i):
            axes = self.trailing(i)
            if axes is not None and len(self.homes[i]) <= 2:
                shape = self.lines[self.lines[i].args[0]].shape
                if self.row_uses(i, axes, shape):
                    return False
            return not (self.anchor(i) or self.passes(i) or self.goes_on(i))
        self.hot[i] = max((self.heat(i, user) for user in self.users[i]), default=0)
        if self.family(i) == "movement" or self.lines[i].op in SPREADING:
            return False  # its source is stored instead
        if self.hot[i] == 2 and (self.widens(i) or (self.few and self.scales(i))):
            return False
        readers = self.readers(i)
        moved = len(readers) > 1 and any(self.moves(user) for user in readers)
        repeated = len(self.homes[i]) > 1 or self.hot[i] > 0 or moved
        return repeated and weight > (0 if self.hot[i] == 2 else CHEAP)

    def heat(self, i: int, user: int) -> int:
        """How often this user asks for one element of i: 0 once, 1 many times, 2 in the inner loop of a contraction."""
        line = self.lines[user]
        if self.family(user) == "contraction":
            return 2
        passed = 0 if user in self.stored else self.hot[user]
        if line.op in SPREADING or line.op in HEAVY_OPS or line.op == "unwindow":
            return max(1, passed)
        if line.op == "expand":
            axes = tuple(a for a, n in enumerate(line.shape) if self.lines[i].shape[a] != n)
            last = axes == tuple(range(len(line.shape) - len(axes), len(line.shape)))
            hoisted = last and self.folds_row(i, axes) and self.covers_rows(user, axes, line.shape)
            return passed if hoisted else max(1, passed)
        return passed

    def widens(self, i: int) -> bool:
        """Whether line i is cheap arithmetic on much smaller elements, such as quantised weights as reals."""
        line = self.lines[i]
        if line.op == "cast" and self.lines[line.args[0]].dtype.name in ("int8", "uint8") and line.dtype.itemsize > 1:
            return True
        sources = self.light_sources(i)
        return sources is not None and NARROW * sum(map(self.nbytes, sources)) <= self.nbytes(i)

    def scales(self, i: int) -> bool:
        """Whether line i is its argument times a constant, for one kernel: less work than starting one for it."""
        line = self.lines[i]
        return (
            line.op == "multiply"
            and len(self.homes[i]) == 1
            and any(constant_of(self.lines, a) is not None for a in line.args)
        )

    def light_sources(self, i: int) -> set[int] | None:
        """The lines in memory that line i is made of by cheap arithmetic and movement; None if there is other work."""
        found, seen, todo = set[int](), {i}, [i]
        while todo:
            j = todo.pop()
            line = self.lines[j]
            if j in self.memory or j in self.stored:
                found.add(j)
            elif self.family(j) in ("movement", "source") or line.op in CHEAP_OPS:
                todo += [a for a in dict.fromkeys(line.args) if a not in seen]
                seen.update(line.args)
            else:
                return None
        return found

    def nbytes(self, i: int) -> int:
        return prod(self.lines[i].shape) * self.lines[i].dtype.itemsize

    def readers(self, i: int) -> list[int]:
        """The users of line i, and of what is i in another shape."""
        found = []
        for user in self.users[i]:
            same = self.lines[user].op in BIJECTIVE and user not in self.stored
            found += self.readers(user) if same else [user]
        return found

    def moves(self, user: int) -> bool:
        """Whether this user asks for elements at other places than the rest of its kernel does."""
        line = self.lines[user]
        return (self.family(user) == "movement" and line.op not in ("expand", "reshape")) or line.op in SPREADING

    def folds_row(self, i: int, axes: tuple[int, ...]) -> bool:
        """Whether line i is elementwise work on results of folding these axes."""
        if i in self.memory:
            return False
        if self.trailing(i) == axes:
            return True
        light = self.family(i) == "elementwise" or self.lines[i].op in BIJECTIVE
        return light and any(self.folds_row(a, axes) for a in self.lines[i].args)

    def anchor(self, i: int) -> bool:
        """Inline a contraction or reduction into the one kernel that works on its result elementwise."""
        if len(self.homes[i]) != 1 or self.lines[i].op == "put_add":  # which has a kernel of its own
            return False
        (root,) = self.homes[i]
        if root in self.anchors or self.heavy(root) or not self.straight(i, root):
            return False
        self.anchors[root] = i
        return True

    def passes(self, i: int) -> bool:
        """Inline a sum of overlapping windows where each of its elements is asked for once, or never."""
        if self.lines[i].op != "unwindow" or len(self.homes[i]) != 1:
            return False
        (root,) = self.homes[i]
        return not self.heavy(root) and self.straight(i, root, BIJECTIVE | {"slice"})

    def goes_on(self, i: int) -> bool:
        """Inline sums of few rows over short groups where sums are made of these, over the letter of the groups."""
        spec = dict(self.lines[i].attrs).get("spec", "") if self.few else ""
        if not spec or i in self.outputs:
            return False
        (left, right), out = spec.partition("->")[0].split(","), spec.partition("->")[2]
        sizes = dict(zip(left + right, (n for a in self.lines[i].args for n in self.lines[a].shape), strict=True))
        rows = min(prod(sizes[c] for c in out if c not in other) for other in (left, right))
        length = prod(sizes[c] for c in left if c not in out)
        if out[-1:] not in left or out[-1:] not in right or rows > GROUP_ROWS or length > GROUP:
            return False
        shape = self.lines[i].shape
        while self.family(i) != "reduction":
            if len(self.users[i]) != 1 or self.lines[i].shape != shape or i in self.stored:
                return False
            (i,) = self.users[i]
            if self.family(i) not in ("elementwise", "reduction"):
                return False
        made = i in self.stored or i in self.anchors.values()
        return made and self.lines[i].op == "sum" and dict(self.lines[i].attrs)["axes"] == (len(shape) - 1,)

    def straight(self, i: int, root: int, movement: frozenset[str] = BIJECTIVE) -> bool:
        """Whether all ways from i lead to the root, and none changes an element's number of uses.

        Where there are several, as in x · σ(x), they are elementwise; on a processor, whose registers are full of sums,
        also cheap.
        """
        ways = {i}
        while ways != {root}:
            i = min(ways)
            users = self.users[i]
            if i >= root or i in self.outputs or not users:
                return False
            ways |= set(users)
            ways.remove(i)
            moves = any(self.family(user) != "elementwise" for user in users)
            if moves and (len(ways) > 1 or self.lines[users[0]].op not in movement):
                return False
            if len(ways) > 1 and not self.few and any(self.lines[user].op not in CHEAP_OPS for user in users):
                return False
        return True

    def path_of(self, root: int) -> list[int]:
        start = self.anchors.get(root, -1)
        if start < 0 or start in self.stored:
            return []
        path = [start]
        while path[-1] != root:
            path.append(self.users[path[-1]][0])
        return path

    def limit(self) -> None:
        """Store more where a kernel would bind too many buffers or nest too deep."""
        leaves: list[set[int]] = []
        depth: list[int] = []
        for i, line in enumerate(self.lines):
            held: set[int] = set()
            deep = 0
            for a in sorted(dict.fromkeys(line.args), key=lambda a: len(leaves[a])):
                below = {a} if a in self.stored or a in self.memory else leaves[a]
                if len(held | below) > self.bindings - 2 and len(below) > 1:
                    self.stored.add(a)
                    below = {a}
                held |= below
                deep = max(deep, 0 if a in self.stored else depth[a])
            leaves.append(held)
            if deep > DEEP and line.op != "input":
                self.stored.add(i)
            cheap = line.op in CHEAP_OPS or self.family(i) != "elementwise"
            depth.append(deep + (1 if cheap else FUNCTION))
        for root, start in list(self.anchors.items()):
            self.shorten(root, start)

    def shorten(self, root: int, start: int) -> None:
        """End the way of an anchor where something on it is stored meanwhile, or before it parts to lead there."""
        i = start
        while i != root and i not in self.stored and len(self.users[i]) == 1:
            (i,) = self.users[i]
        if i == root or (i not in self.stored and not self.stores_between(i, root)):
            return
        self.stored.add(i)
        del self.anchors[root]
        self.anchors[i] = start

    def stores_between(self, i: int, root: int) -> bool:
        """Whether something on the ways from line i to the root is stored."""
        ways = set(self.users[i])
        while ways != {root}:
            i = min(ways)
            if i in self.stored:
                return True
            ways |= set(self.users[i])
            ways.remove(i)
        return False


def fuse(
    graph: Graph,
    bindings: int,
    prepared: Prepared | None = None,
    *,
    few: bool = False,
    planes: Planes | None = None,
) -> Fusion:
    """What to store and what to inline, for kernels of at most `bindings` arguments.

    prepared  lines that are made once and not at each call: no kernel makes both kinds; and those that must be stored
    few       make small outputs together, though what they are made of must wait for it, and sums of groups in the
              kernel that adds them up, where its threads share them out: starting a kernel costs more
    planes    what is made again rather than stored
    """
    prepared = prepared or Prepared()
    fuser = _Fuser(graph, bindings, prepared.kept, few, planes or Planes())
    fusion = fuser.run()
    reads_only = {
        r
        for r in fusion.stored
        if fuser.family(r) == "elementwise" and r not in fusion.path and not _has_rows(fuser, r)
    }
    fusion.groups = group(graph, fusion.stored, reads_only, bindings, prepared.fixed, few=few)
    return fusion


def _has_rows(fuser: _Fuser, root: int) -> bool:
    stack = list(fuser.lines[root].args)
    seen: set[int] = set()
    while stack:
        i = stack.pop()
        if i in seen or i in fuser.stored or i in fuser.memory:
            continue
        seen.add(i)
        if fuser.heavy(i):
            return True
        stack.extend(fuser.lines[i].args)
    return False
