"""Which stored lines of a Graph one kernel makes together, and in which order kernels run."""

from math import prod

from ..graph.graph import Graph

__all__ = ["group"]

NEAR = 16  # groups before a line that may take it in
SMALL = 1 << 18  # elements of an update that costs a graphics card more to start than to do
REST = 4  # buffers that the rest of a parameter's update may bind: of Adam's, after m, p and v, old and new


def group(
    graph: Graph, stored: set[int], mergeable: set[int], bindings: int, fixed: set[int], *, few: bool
) -> list[list[int]]:
    """The stored lines in groups, each made by one kernel, in an order in which these can run.

    stored     lines that are in memory, inputs not included
    mergeable  those of them that are elementwise and fold nothing: only these share a kernel
    bindings   buffers that a kernel may bind
    fixed      lines that are made once and not at each call: no kernel makes both kinds
    few        make small outputs together, though what they are made of must wait for it
    """
    return _Grouper(graph, stored, mergeable, bindings, fixed, few).run()


class _Grouper:
    """Stored lines in running order; elementwise ones of one shape that read alike are made by one kernel."""

    def __init__(
        self, graph: Graph, stored: set[int], mergeable: set[int], bindings: int, fixed: set[int], few: bool
    ) -> None:
        self.graph, self.mergeable, self.bindings, self.fixed = graph, mergeable, bindings, fixed
        self.updates = set(graph.outputs) & mergeable if few else set[int]()
        self.updated: dict[tuple[int, ...], list[int]] = {}  # shape -> groups of small outputs
        self.memory = stored | {i for i, line in enumerate(graph.lines) if line.op == "input"}
        self.order = sorted(stored)
        self.reads = {r: self.read_by(r) for r in self.order}
        self.groups: list[list[int]] = []
        self.home: dict[int, int] = {}
        self.needs: list[set[int]] = []  # groups that must run before each group, all of them

    def read_by(self, root: int) -> set[int]:
        """The lines in memory that the root's kernel loads."""
        found: set[int] = set()
        stack, seen = list(self.graph.lines[root].args), set()
        while stack:
            i = stack.pop()
            if i in seen:
                continue
            seen.add(i)
            if i in self.memory:
                found.add(i)
            else:
                stack.extend(self.graph.lines[i].args)
        return found

    def run(self) -> list[list[int]]:
        for r in self.order:
            sources = {self.home[d] for d in self.reads[r] if d in self.home}
            at = self.partner(r, sources)
            if at is None:
                at = len(self.groups)
                self.groups.append([])
                self.needs.append(set())
                if self.is_small_update(r):
                    self.updated.setdefault(self.graph.lines[r].shape, []).append(at)
            self.groups[at].append(r)
            self.home[r] = at
            added = set().union(*(self.needs[s] | {s} for s in sources if s != at))
            for n in range(len(self.groups)):  # whoever needs this group needs what it needs
                if n == at or at in self.needs[n]:
                    self.needs[n] |= added
        return [self.groups[n] for n in sorted(range(len(self.groups)), key=lambda n: len(self.needs[n]))]

    def is_small_update(self, r: int) -> bool:
        """Whether line r is a new parameter or the like, so small that starting its kernel is most of the work."""
        return r in self.updates and prod(self.graph.lines[r].shape) <= SMALL

    def candidates(self, r: int) -> list[int]:
        """Groups that may take line r in, the best first: near ones, and for updates all others of the same shape."""
        near = list(range(len(self.groups) - 1, max(len(self.groups) - 1 - NEAR, -1), -1))
        far = self.updated.get(self.graph.lines[r].shape, []) if self.is_small_update(r) else []
        return near + far[: -NEAR - 1 : -1]

    def partner(self, r: int, sources: set[int]) -> int | None:
        """A group that can make line r too: same shape, and nothing r reads waits for it.

        It shares an input; or it makes small updates, and has room for all that belongs to one more.
        """
        if r not in self.mergeable:
            return None
        for at in self.candidates(r):
            members = self.groups[at]
            if members[0] not in self.mergeable or self.graph.lines[members[0]].shape != self.graph.lines[r].shape:
                continue
            if (members[0] in self.fixed) != (r in self.fixed):
                continue
            if any(at in self.needs[s] for s in sources if s != at):
                continue
            loaded = set().union(*(self.reads[m] for m in members))
            touched = loaded | self.reads[r] | set(members) | {r}
            alike = bool(self.reads[r] & (loaded | set(members)))
            begins = self.is_small_update(r) and at in self.updated.get(self.graph.lines[r].shape, ())
            if len(touched) <= self.bindings if alike else begins and len(touched) + REST <= self.bindings:
                return at
        return None
