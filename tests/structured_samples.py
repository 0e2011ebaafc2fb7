"""Shapes and attributes to try, where a family does not prescribe them: movement, contraction, indexing."""

from typing import Any

from nearfield.dtype import DTYPES


def conv(x: tuple[int, ...], w: tuple[int, ...], **attrs: Any) -> dict[str, Any]:
    rank = len(x) - 3
    plain = {"stride": (1,) * rank, "pad": ((0, 0),) * rank, "dilation": (1,) * rank, "spread": (1,) * rank}
    return {"shapes": (x, w), **plain, **attrs}


def einsum(spec: str, *shapes: tuple[int, ...]) -> dict[str, Any]:
    return {"shapes": shapes, "spec": spec}


def one(x: tuple[int, ...], /, **attrs: Any) -> dict[str, Any]:
    return {"shapes": (x,), **attrs}


def taken(x: tuple[int, ...], indices: tuple[int, ...], axis: int, size: int, **attrs: Any) -> dict[str, Any]:
    return {"shapes": (x,), "indices": (indices, size), "axis": axis, **attrs}


WINDOW = {"size": (3,), "stride": (2,), "dilation": (1,)}
PATCH = {"size": (2, 3), "stride": (1, 2), "dilation": (2, 1)}
KNOWN: dict[str, list[dict[str, Any]]] = {
    "identity": [one((3, 5)), one(())],
    "stop_gradient": [one((3, 5)), one(())],
    "const": [
        {"shapes": (), "value": v, "dtype": DTYPES[d]}
        for d, v in (("float32", -2.5), ("int8", 300), ("float16", 1e9), ("bool", 3))
    ],
    "iota": [{"shapes": (), "n": n} for n in (7, 1, 0)],
    "reshape": [
        one((3, 5), shape=(5, 3)),
        one((6, 7), shape=(2, 3, 7)),
        one((1,), shape=()),
        one((0, 3), shape=(3, 0)),
    ],
    "permute": [
        one((3, 5), axes=(1, 0)),
        one((2, 3, 7), axes=(2, 0, 1)),
        one((4,), axes=(0,)),
        one((), axes=()),
        one((0, 3), axes=(1, 0)),
    ],
    "expand": [
        one((3, 1), shape=(3, 5)),
        one((1, 7), shape=(3, 7)),
        one((1, 1), shape=(2, 2)),
        one((1, 3), shape=(0, 3)),
    ],
    "slice": [
        one((7,), start=(1,), stop=(6,), step=(2,)),
        one((7, 5), start=(6, 0), stop=(-1, 5), step=(-1, 3)),
        one((7,), start=(5,), stop=(0,), step=(-2,)),
        one((7, 3), start=(2, 1), stop=(2, 3), step=(1, 1)),
        one((), start=(), stop=(), step=()),
    ],
    "pad": [
        one((5,), low=(2,), high=(1,), step=(1,), value=1.0),
        one((3, 5), low=(0, 1), high=(2, 0), step=(2, 1), value=0.0),
        one((0, 2), low=(1, 0), high=(2, 1), step=(1, 1), value=3.0),
        one((4,), low=(1,), high=(1,), step=(3,), value=float("-inf")),
    ],
    "concat": [
        {"shapes": ((3, 2), (3, 5)), "axis": 1},
        {"shapes": ((2, 3), (1, 3), (4, 3)), "axis": 0},
        {"shapes": ((0, 3), (2, 3)), "axis": 0},
        {"shapes": ((5,),), "axis": 0},
    ],
    "windows": [one((2, 9), **WINDOW), one((7, 8), **PATCH), one((3,), size=(3,), stride=(1,), dilation=(1,))],
    "unwindow": [
        one((2, 4, 3), shape=(2, 9), **WINDOW),
        one((5, 3, 2, 3), shape=(7, 8), **PATCH),
        one((1, 3), shape=(4,), size=(3,), stride=(2,), dilation=(1,)),
    ],
    "einsum": [
        einsum("nk,km->nm", (3, 5), (5, 7)),
        einsum("nk,mk->nm", (17, 9), (6, 9)),
        einsum("bnk,bkm->bnm", (2, 3, 4), (2, 4, 5)),
        einsum("nk,nk->n", (3, 5), (3, 5)),
        einsum("n,m->nm", (3,), (5,)),
        einsum("nk,km->n", (3, 5), (5, 4)),
        einsum("nk,km->m", (3, 5), (5, 4)),
        einsum("n,n->", (7,), (7,)),
        einsum("nk,km->nm", (3, 0), (0, 2)),
        einsum("nk,km->mn", (33, 40), (40, 17)),
        einsum("bhqd,bhkd->bhqk", (1, 2, 3, 8), (1, 2, 5, 8)),
        einsum("nk,m->nm", (3, 4), (2,)),
    ],
    "conv": [
        conv((2, 7, 1, 3), (3, 1, 3, 2)),
        conv((1, 5, 6, 1, 3), (3, 2, 1, 3, 4), stride=(2, 1), pad=((1, 1), (0, 1))),
        conv((1, 6, 5, 2, 2), (2, 2, 2, 2, 3), dilation=(2, 1)),
        conv((1, 4, 4, 3, 1), (3, 3, 3, 1, 1), pad=((1, 1), (1, 1))),
        conv((1, 3, 4, 1, 2), (2, 3, 1, 2, 2), spread=(2, 3), pad=((1, 0), (-1, 2))),
        conv((1, 3, 3, 3, 1, 1), (2, 2, 2, 1, 1, 1)),
    ],
    "take": [taken((5, 3), (4,), 0, 5), taken((3, 7), (2, 3), 1, 7), taken((4,), (), 0, 4), taken((3, 2), (0,), 0, 3)],
    "put_add": [taken((4, 3), (4,), 0, 5, n=5), taken((3, 2, 3), (2, 3), 1, 7, n=7), taken((), (), 0, 4, n=4)],
    "take_along": [taken((5, 3), (2, 3), 0, 5), taken((3, 7), (3, 4), 1, 7)],
    "put_along": [taken((2, 3), (2, 3), 0, 5, n=5), taken((3, 4), (3, 4), 1, 7, n=7)],
}
