"""How threads share an entry's steps: tickets for pieces of each step, and barriers between steps.

Each thread has a share of every step, the same from step to step, since what it made lies in its core's cache. It takes
its share in pieces, the first of them half of it; when nothing is left it takes pieces of others. So a core that is
slower, busy with other work or not yet awake holds nobody up for longer than a piece takes.

source  Blumofe and Leiserson, "Scheduling Multithreaded Computations by Work Stealing", 1999, for the idea; there are
        no queues here: a share is a range, and a ticket the number of a piece of it
"""

from collections.abc import Sequence

from .wasm_bytes import OP, Function, get, i32, i64, memarg, put, tee, uleb

__all__ = ["functions", "run"]

HEADER = 5  # words in front of the addresses in a block of arguments
SPINS = 20000  # looks at the generation before a thread goes to sleep: about as long as waking it takes
SLOTS = 8  # shared steps between two barriers that have tickets of their own
PARTS = 16  # of a share, of which the first piece has half and each other piece one
LINE = 64  # bytes of a thread's tickets, a cache line: SLOTS words for each of two stretches between barriers
BARRIER, TAKE = 0, 1  # numbers of the two functions that all modules have


def functions() -> list[tuple[str, int, int, bytes]]:
    """The rows of `wasm_bytes.module` for BARRIER and TAKE."""
    return [("", 3, 0, _barrier()), ("", 5, 2, _take())]


def run(steps: Sequence[tuple[int, Sequence[int], int, int]], alone: Sequence[bool], meetings: Sequence[bool]) -> bytes:
    """The function (args, thread, threads) that does a thread's part of all steps.

    steps     number of the function, buffers, total, grain
    alone     whether thread 0 does a step by itself
    meetings  whether there is a barrier before each step, and whether there is one after the last
    """
    f = Function(3)
    args, thread, threads = map(get, range(3))
    begin, end, tickets = (f.local("i32") for _ in range(3))
    meet = args + thread + threads + OP["call"] + uleb(BARRIER)
    own = get(tickets) + thread + i32(LINE) + OP["i32.mul"] + OP["i32.add"]
    used = stretch = 0  # tickets taken since the last barrier, and which half of the lines they are in
    parts = [args + OP["i32.load"] + memarg(16, 2) + put(tickets)]
    for (function, buffers, total, grain), single, barrier in zip(steps, alone, meetings, strict=False):
        if barrier or used == SLOTS:
            parts.append(meet + _cleared(own, stretch, used))
            used, stretch = 0, 1 - stretch if used else stretch
        call = b"".join(args + OP["i32.load"] + memarg(4 * (HEADER + b), 2) for b in buffers)
        if single:
            whole = call + i32(0) + i32(total) + OP["call"] + uleb(function)
            parts.append(thread + OP["i32.eqz"] + OP["if"] + whole + OP["end"])
            continue
        slot = get(tickets) + i32(4 * (SLOTS * stretch + used)) + OP["i32.add"]
        take = slot + thread + threads + i32(total) + i32(grain) + OP["call"] + uleb(TAKE) + put(end) + tee(begin)
        # nothing is left when begin is not below end
        work = call + get(begin) + get(end) + OP["call"] + uleb(function)
        again = get(end) + OP["i32.lt_u"] + OP["if"] + work + OP["br"] + b"\1" + OP["end"]
        parts.append(OP["loop"] + take + again + OP["end"])
        used += 1
    if meetings[-1]:
        parts.append(meet + _cleared(own, stretch, used))
    return f.body(b"".join(parts))


def _cleared(own: bytes, stretch: int, used: int) -> bytes:
    """New tickets, two at a time, for a stretch that all have left; the other half of the line serves meanwhile."""
    words = range(4 * SLOTS * stretch, 4 * (SLOTS * stretch + used), 8)
    return b"".join(own + i64(0) + OP["i64.store"] + memarg(at, 3) for at in words)


def _take() -> bytes:
    """(slot, thread, threads, total, grain) → begin and end of a piece that nobody else has; both 0 when all is taken.

    slot  address of the step's ticket in the line of thread 0

    In Python, where tickets are numbers and next_ticket counts one up, atomically:

        pieces = ceil(total / grain)
        for owner in thread, thread + 1, … (after the last 0), all of them:
            first = ceil(pieces * owner / threads)
            size = ceil(pieces * (owner + 1) / threads) - first
            head = ceil(size / 2) if threads > 1 else size
            small = ceil(size / PARTS)
            ticket = next_ticket(owner)
            at = head + (ticket - 1) * small if ticket else 0
            if at < size:
                length = small if ticket else head
                return (first + at) * grain, min((first + min(at + length, size)) * grain, total)
        return 0, 0
    """
    f = Function(5)
    slot, thread, threads, total, grain = map(get, range(5))
    owner, left, pieces, first, size, head, ticket, at = (f.local("i32") for _ in range(8))
    one, add, sub, mul = i32(1), OP["i32.add"], OP["i32.sub"], OP["i32.mul"]

    def rounded_up(number: bytes, divisor: bytes) -> bytes:
        return number + divisor + add + one + sub + divisor + OP["i32.div_u"]

    def smaller(local: int, other: bytes) -> bytes:
        """Of what is on the stack and another; `local` is free for it."""
        return tee(local) + other + get(local) + other + OP["i32.lt_u"] + OP["select"]

    def share(number: bytes) -> bytes:
        # rounded up, so that a single piece is thread 0's, which is surely awake
        return rounded_up(get(pieces) + number + mul, threads)

    start = thread + put(owner) + threads + put(left) + rounded_up(total, grain) + put(pieces)
    bounds = share(get(owner)) + put(first) + share(get(owner) + one + add) + get(first) + sub + put(size)
    several = threads + one + OP["i32.gt_u"]  # 0 or 1: the shift that halves, and what rounds up before it
    half = get(size) + several + add + several + OP["i32.shr_u"] + put(head)
    small = get(size) + i32(PARTS - 1) + add + i32(PARTS) + OP["i32.div_u"]
    place = slot + get(owner) + i32(LINE) + mul + add
    number = place + one + OP["i32.atomic.rmw.add"] + memarg(0, 2) + tee(ticket)
    begin = number + one + sub + small + mul + get(head) + add + i32(0) + get(ticket) + OP["select"] + tee(at)
    length = small + get(head) + get(ticket) + OP["select"]
    piece = get(first) + get(at) + add + grain + mul
    piece += get(first) + get(at) + length + add + smaller(at, get(size)) + add + grain + mul
    piece += smaller(at, total) + OP["return"]
    found = begin + get(size) + OP["i32.lt_u"] + OP["if"] + piece + OP["end"]
    following = get(owner) + one + add + tee(owner)
    is_thread = get(owner) + threads + OP["i32.lt_u"]
    other = following + i32(0) + is_thread + OP["select"] + put(owner)
    again = get(left) + one + sub + tee(left) + OP["br_if"] + b"\0"
    return f.body(start + OP["loop"] + bounds + half + found + other + again + OP["end"] + i32(0) + i32(0))


def _barrier() -> bytes:
    """(args, thread, threads): return when all threads have come here.

    The last to come begins the next generation and wakes those who sleep. The others look for that, and go to sleep
    after SPINS looks, if they may.
    """
    f = Function(3)
    args, thread, threads = map(get, range(3))
    old, left = f.local("i32"), f.local("i32")
    arrived, generation, may_sleep, asleep = (memarg(4 * word, 2) for word in range(4))  # docs/spec/program.md, 4
    add, back = OP["i32.atomic.rmw.add"], OP["br_if"] + b"\0"
    now = args + OP["i32.atomic.load"] + generation
    sleepers = args + OP["i32.atomic.load"] + asleep

    alone = threads + i32(2) + OP["i32.lt_u"] + OP["if"] + OP["return"] + OP["end"]
    last = args + i32(1) + add + arrived + i32(1) + OP["i32.add"] + threads + OP["i32.eq"]
    reset = args + i32(0) + OP["i32.atomic.store"] + arrived
    begin = args + i32(1) + add + generation + OP["drop"]
    wake = args + i32(-1) + OP["memory.atomic.notify"] + generation + OP["drop"]
    notify = sleepers + OP["if"] + wake + OP["end"]  # to wake takes long, also when nobody sleeps
    release = last + OP["if"] + reset + begin + notify + OP["return"] + OP["end"]

    changed = now + get(old) + OP["i32.ne"] + OP["if"] + OP["return"] + OP["end"]
    fewer = get(left) + i32(1) + OP["i32.sub"] + tee(left)
    spin = i32(SPINS) + put(left) + OP["loop"] + changed + fewer + back + OP["end"]

    may_block = thread + args + OP["i32.load"] + may_sleep + OP["i32.or"]
    lie_down, get_up = (args + i32(n) + add + asleep + OP["drop"] for n in (1, -1))
    wait = args + get(old) + i64(-1) + OP["memory.atomic.wait32"] + generation + OP["drop"]
    nap = may_block + OP["if"] + lie_down + wait + get_up + OP["end"]
    same = now + get(old) + OP["i32.eq"]
    sleep = OP["loop"] + nap + same + back + OP["end"]
    return f.body(alone + now + put(old) + release + spin + sleep)
