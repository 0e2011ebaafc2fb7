"""What random Graphs consist of: each motif is one family of kernels at sizes around its tiles, vectors and pieces."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import nearfield as nf
from graph_drawing import ANY, CUTS, FLOATS, Drawing
from nearfield import nn
from nearfield.functional.conv import conv
from nearfield.grad import gradients
from nearfield.tensor import Tensor, apply

Made = list[Tensor]
Motif = Callable[[Drawing], Made]
MOTIFS: dict[str, Motif] = {}

DEPTHS = (1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 100, 128, 129)
BREADTHS = (1, 2, 3, 4, 5, 8, 15, 16, 17, 32, 33, 64, 65, 96, 128, 130)
PADDINGS = ("same", "valid", 1, ((0, 1), (2, 0)), ((1, 1), (2, 2)))


def motif(draw: Motif) -> Motif:
    """Enter it into the table under its name."""
    MOTIFS[draw.__name__] = draw
    return draw


def drawn(seed: int, names: Sequence[str] = ()) -> tuple[Drawing, Made]:
    """One or two motifs (of those named, if any are), and what they compute."""
    d = Drawing(seed)
    outputs: Made = []
    for _ in range(d.one_of((1, 1, 2))):
        outputs += MOTIFS[d.one_of(tuple(names) or tuple(MOTIFS))](d)
    return d, outputs


# --- products -------------------------------------------------------------------------------------------------------


@motif
def product(d: Drawing) -> Made:
    """A matrix product, perhaps of batches, perhaps followed by another."""
    dtype = d.one_of(FLOATS)
    m, k, n = d.one_of((1, 1, 2, 3, 5, 8, 9, 17, 32, 33, 70, 130)), d.one_of(DEPTHS), d.one_of(BREADTHS)
    batch = d.one_of(((), (), (), (2,), (3,), (1,), (2, 3)))
    a = d.view((*batch, m, k), dtype)
    b = nf.astype(d.view((*d.one_of((batch, ())), k, n), d.one_of((dtype, dtype, "float16"))), dtype)
    if d.maybe(0.3):
        b = nf.matrix_transpose(nf.matrix_transpose(b) + 0)
    y = d.finished(d.scaled(nf.matmul(a, b), k))
    if d.maybe(0.25) and y.dtype.kind == "f" and y.ndim >= 2 and y.shape[-1]:
        y = d.finished(nf.matmul(d.small(y), d.view((y.shape[-1], d.size()), y.dtype.name)))
    return [y]


@motif
def products_of_the_same(d: Drawing) -> Made:
    """Several matrices multiply one."""
    m, k = d.size(), d.size()
    x = d.view((m, k))
    return [d.finished(nf.matmul(x, d.view((k, d.size())))) for _ in range(d.one_of((2, 3)))]


@motif
def contraction(d: Drawing) -> Made:
    """Any axes of two arrays, in any order."""
    letters = d.random.sample("abcde", d.whole(2, 4))
    sizes = {c: d.one_of((1, 2, 3, 4, 5, 8, 9, 16, 17)) for c in letters}
    a, b = ([c for c in letters if d.maybe(0.75)] or letters[:1] for _ in "ab")
    d.random.shuffle(a)
    d.random.shuffle(b)
    c = [letter for letter in dict.fromkeys(a + b) if d.maybe(0.6)]
    d.random.shuffle(c)
    dtype = d.one_of((*FLOATS, "int32", "int8", "uint8"))
    x, y = (d.view([sizes[letter] for letter in axes], dtype) for axes in (a, b))
    return [d.finished(nf.einsum(f"{''.join(a)},{''.join(b)}->{''.join(c)}", x, y))]


@motif
def matvec(d: Drawing) -> Made:
    """Few rows times a large matrix."""
    m, n = d.one_of((1, 2, 3, 5, 8, 9)), d.one_of((63, 64, 65, 66, 96, 100, 127, 128, 300))
    k = d.one_of((255, 256, 257, 260, 288, 320, 512, 516, 640, 1030, 1056))
    dtype, batch = d.one_of(("float32", "float16")), d.one_of(((), (), (1,), (2,)))
    x = d.view((*batch, m, k), dtype)
    w = d.view((*d.one_of(((), batch)), n, k), d.one_of(("float16", dtype)))
    return [d.finished(d.scaled(d.small(nf.matmul(x, nf.matrix_transpose(nf.astype(w, dtype)))), k))]


@motif
def weights_of_few_bits(d: Drawing) -> Made:
    """Products with matrices of 8 and 4 bits that have a scale for each group."""
    bits, group = d.one_of((4, 8)), d.one_of((32, 64, 128))
    k, m = group * d.one_of((1, 2, 3, 8)), d.one_of((1, 1, 2, 3, 7, 8, 9, 20))
    n = d.one_of((1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 64, 100))
    x = d.view(d.one_of(((m, k), (k,), (1, m, k))), d.one_of(("float32", "float32", "float16")))
    numbers = d.new((n, k * bits // 8), "int8")
    scale = d.new((n, k // group), d.one_of(("float16", "float32")))
    y = nf.quantized_matmul(x, numbers, scale, bits=bits, activations=d.one_of((None, None, "int8")))
    return [d.finished(d.small(y if d.exact else y * 0.01))]


def rounded(d: Drawing, y: Tensor) -> Tensor:
    """A sum of products of bytes as the next layer of 8 bits takes it."""
    low, high, dtype = d.one_of(((-127, 127, "int8"), (0, 127, "int8"), (0, 255, "uint8"), (-128, 127, "int8")))
    return nf.astype(nf.clip(nf.round(y), low, high), dtype)


@motif
def product_of_bytes(d: Drawing) -> Made:
    """Integers of 8 bits, multiplied in 32; what comes out is left, scaled, or rounded to 8 bits."""
    m, k, n = d.one_of((1, 3, 8, 17, 33)), d.one_of((4, 8, 12, 16, 32, 36, 64, 128, 31)), d.size()
    a = nf.astype(d.new((m, k), d.one_of(("int8", "uint8"))), "int32")
    if d.maybe(0.3):
        b = nf.matrix_transpose(d.new((n, k), "int8"))
    else:
        b = d.new((k, n), d.one_of(("int8", "int8", "uint8")))
    y = nf.matmul(a, nf.astype(b, "int32"))
    real = nf.astype(y, "float32")
    return [d.one_of((lambda: y, lambda: real * d.new((n,)), lambda: rounded(d, real * 0.01)))()]


# --- convolutions ---------------------------------------------------------------------------------------------------


@motif
def convolution(d: Drawing) -> Made:
    """Of 1, 2 and 3 dimensions, with strides, gaps and groups."""
    d.odd = False  # 0 times infinity is NaN, but the zeros around an image may be left out
    rank = d.one_of((1, 2, 2, 2, 3))
    window, stride, gaps = (
        tuple(d.one_of(of) for _ in range(rank)) for of in ((1, 2, 3, 4, 5), (1, 1, 2, 3), (1, 1, 2))
    )
    groups, c_in, c_out = (
        d.one_of((1, 1, 2, 3)),
        d.one_of((1, 2, 3, 4, 5, 8, 16, 17)),
        d.one_of((1, 2, 3, 4, 8, 17, 33)),
    )
    reach = [(w - 1) * gap + 1 for w, gap in zip(window, gaps, strict=True)]
    space = [d.whole(r, r + (12 if rank < 3 else 4)) for r in reach]
    sides = tuple((d.whole(0, 2), d.whole(0, 2)) for _ in range(rank))
    dtype, padding = d.one_of(FLOATS), d.one_of(("valid", "same", 1, sides))
    x = d.view((d.one_of((1, 2, 3)), *space, groups * c_in), dtype)
    w = d.view((*window, c_in, groups * c_out), dtype)
    y = conv(x, w, stride=stride, padding=padding, dilation=gaps, groups=groups)
    return [d.finished(d.scaled(y, prod(window) * c_in))]


@motif
def convolutions_3x3(d: Drawing) -> Made:
    """With many channels, one after another, perhaps in groups."""
    d.odd = False
    c_in, c_out, groups = (
        d.one_of((1, 3, 16, 24, 25, 32, 48)),
        d.one_of((8, 17, 24, 32, 40, 65)),
        d.one_of((1, 1, 1, 2)),
    )
    dtype = d.one_of(("float32", "float32", "float16"))
    y = first = d.view((d.one_of((1, 2, 3)), d.whole(3, 20), d.whole(3, 20), groups * c_in), dtype)
    for _ in range(d.one_of((1, 1, 2))):
        padding = d.one_of(PADDINGS) if min(y.shape[1:3]) >= 3 else "same"
        w = d.view((3, 3, y.shape[-1] // groups, groups * c_out), dtype)
        y = d.scaled(nn.conv2d(d.small(y), w, padding=padding, groups=groups), 9 * w.shape[2])
        if d.maybe(0.6):
            y = d.small(y + d.new((groups * c_out,), dtype))
        if d.maybe(0.6):
            y = nn.relu(y)
    if y.shape == first.shape and d.maybe():
        y = y + first
    return [d.finished(y)]


def by_channel(d: Drawing, x: Tensor, w: Tensor) -> Tensor:
    """A depthwise convolution, with strides and gaps."""
    stride, gaps = d.one_of(((1, 1), (2, 2), (2, 1), (1, 2), (3, 3))), d.one_of(((1, 1), (1, 1), (2, 1)))
    reach = [(n - 1) * gap + 1 for n, gap in zip(w.shape[:2], gaps, strict=True)]
    padding = d.one_of(PADDINGS) if all(n >= r for n, r in zip(x.shape[1:3], reach, strict=True)) else "same"
    return nn.conv2d(x, w, stride=stride, padding=padding, dilation=gaps, groups=x.shape[-1])


@motif
def depthwise(d: Drawing) -> Made:
    """Each channel by itself, then perhaps a product over channels."""
    d.odd = False
    c, window = d.one_of((1, 15, 16, 17, 20, 32, 36, 48)), d.one_of(((3, 3), (5, 5), (1, 3), (4, 5), (3, 1), (2, 2)))
    shape = d.one_of((1, 2)), window[0] + d.whole(0, 14), window[1] + d.whole(0, 14), c
    if d.maybe(0.3):
        x, w = (
            nf.astype(d.new(s, t), "int32")
            for s, t in ((shape, d.one_of(("int8", "uint8"))), ((*window, 1, c), "int8"))
        )
        y = nf.astype(by_channel(d, x, w) + d.new((c,), "int32"), "float32") * 0.01
        return [rounded(d, y) if d.maybe(0.6) else y]
    y = by_channel(d, d.view(shape), d.view((*window, 1, c)))
    if d.maybe(0.6):
        y = d.small(y + d.new((c,)))
    y = d.one_of((lambda y: y, nn.relu, nn.relu6, lambda y: nf.clip(y, -1, 1)))(y)
    if d.maybe(0.3):
        y = nn.conv2d(y, d.new((1, 1, c, d.one_of((8, 16, 17)))))
    return [d.finished(y)]


@motif
def convolution_of_bytes(d: Drawing) -> Made:
    """As quantize_static makes them."""
    c_in, c_out, window = d.one_of((4, 8, 12, 16, 32)), d.one_of((4, 8, 16, 17, 32)), d.one_of(((1, 1), (3, 3), (2, 3)))
    shape = d.one_of((1, 2)), d.whole(3, 10), d.whole(3, 10), c_in
    x = nf.astype(d.new(shape, d.one_of(("int8", "uint8"))), "int32")
    w = nf.astype(d.new((*window, c_in, c_out), "int8"), "int32")
    y = nn.conv2d(x, w, stride=d.one_of((1, 2)), padding=d.one_of(("same", "valid", 1))) + d.new((c_out,), "int32")
    y = nf.astype(y, "float32") * d.one_of((0.001, 0.01))
    if d.maybe(0.3):
        y = y + nf.astype(d.new(y.shape, "int8"), "float32")
    return [rounded(d, y)]


@motif
def transposed_convolution(d: Drawing) -> Made:
    """Larger images of smaller ones."""
    d.odd = False
    stride, n = d.one_of((1, 2, 3)), d.one_of((1, 2, 3, 4))
    x = d.view((d.one_of((1, 2)), d.whole(1, 8), d.whole(1, 8), d.one_of((1, 3, 4, 8))))
    w = d.view((n, n, x.shape[-1], d.one_of((1, 3, 8, 16))))
    more = d.one_of((0, 0, 1)) if stride > 1 else 0
    padding = d.one_of(("valid", "same")) if n >= stride else "valid"
    return [d.finished(nn.conv_transpose2d(x, w, stride=stride, padding=padding, output_padding=more))]


@motif
def pooling(d: Drawing) -> Made:
    """The largest or the mean of each window."""
    x = d.view((d.one_of((1, 2)), d.whole(4, 20), d.whole(4, 20), d.size()), d.one_of(FLOATS))
    pool = nn.max_pool if d.exact else d.one_of((nn.max_pool, nn.avg_pool))
    window, stride = d.one_of((1, 2, 3, (2, 3))), d.one_of((None, 1, 2, (2, 1)))
    return [d.finished(pool(x, window, stride=stride, padding=d.one_of(("valid", "same", 0))))]


# --- rows -----------------------------------------------------------------------------------------------------------

ALONG = (
    nn.softmax,
    nn.log_softmax,
    nn.layer_norm,
    nn.rms_norm,
    nf.var,
    nf.std,
    nf.cumulative_sum,
    lambda x, axis: nn.logsumexp(x, axis=axis),
    lambda x, axis: x / (nf.sum(nf.abs(x), axis=axis, keepdims=True) + 1),
)


@motif
def rows(d: Drawing) -> Made:
    """What a whole row has to be known for, of short and long rows."""
    d.exact = False
    long = ((1, d.one_of((1000, 4097, 20_000))), (d.one_of((300, 5000)),), (3, 2000))
    shape = d.one_of((d.shape(2), d.shape(3), *long))
    x = d.view([max(1, n) for n in shape], d.one_of(FLOATS))
    x = d.changed(x) if d.maybe() else x
    return [d.finished(d.one_of(ALONG)(x, axis=d.random.randrange(x.ndim)))]


@motif
def columns(d: Drawing) -> Made:
    """Reductions over the first axis, of few and many rows."""
    rows, n = d.one_of((5, 100, 1000, 5000)), d.one_of((1, 3, 4, 32, 33, 64, 130))
    x = d.view((rows, n), d.one_of((*FLOATS, "int32", "uint8")))
    if x.dtype.kind == "f":
        y = d.one_of((nf.sum, nf.sum, nf.max, nf.min))(d.changed(x), axis=0, keepdims=d.maybe())
        return [d.scaled(y, rows) + nf.sum(x) if d.maybe() else y]
    return [d.one_of((nf.sum, nf.max, nf.min, nf.prod))(x, axis=0, keepdims=d.maybe())]


@motif
def long_vector(d: Drawing) -> Made:
    """So many elements that several threads, or very many workgroups, share them."""
    x = d.view((d.one_of((5000, 70_000, 300_001)),), d.one_of((*FLOATS, "int32", "uint8")))
    x = d.changed(x)
    return [d.reduced(x), x] if d.maybe(0.3) else [d.reduced(x)]


def mask_for(d: Drawing, dtype: str, b: int, h: int, t: int, s: int) -> Tensor | None:
    """None, which keys each query may see, or what is added to the scores."""
    kind = d.one_of((None, None, "bool", dtype))
    return None if kind is None else d.view(d.one_of(((t, s), (b, 1, 1, s), (s,), (b, h, t, s))), kind)


def attended(d: Drawing) -> tuple[Made, Tensor]:
    """Queries, keys and values, and a mask of numbers if there is one; what attention makes of them."""
    b, h, dtype = d.one_of((1, 2)), d.one_of((1, 2, 3)), d.one_of(FLOATS)
    t, s = d.one_of((1, 3, 8, 17, 33, 64, 70)), d.one_of((1, 5, 8, 31, 33, 64, 65))
    n, m = d.one_of((1, 4, 8, 16, 33, 64)), d.one_of((1, 4, 8, 17, 64))
    q, k, v = (d.view(shape, dtype) for shape in ((b, h, t, n), (b, h, s, n), (b, h, s, m)))
    mask = mask_for(d, dtype, b, h, t, s)
    y = nn.scaled_dot_product_attention(q, k, v, mask=mask, causal=d.maybe(0.4))
    return [q, k, v, *([mask] if mask is not None and mask.dtype.kind == "f" else [])], y


@motif
def attention(d: Drawing) -> Made:
    """With masks, for queries and keys of all numbers."""
    d.exact = False
    return [d.finished(attended(d)[1])]


@motif
def attention_backwards(d: Drawing) -> Made:
    """Gradients of attention with respect to some of what it is made of."""
    d.exact = d.odd = False
    sources, y = attended(d)
    chosen = [x for x in sources if d.maybe(0.8)] or sources[:1]
    found = gradients([y], [d.new(y.shape, y.dtype.name)], chosen)
    return [*found, y] if d.maybe() else found


@motif
def transformer(d: Drawing) -> Made:
    """One block."""
    d.exact = False
    t, n, hidden = d.one_of((1, 5, 8, 17, 33)), d.one_of((8, 32, 33, 64)), d.one_of((16, 64, 100))
    heads, dtype = d.one_of([h for h in (1, 2, 3, 4, 8) if n % h == 0]), d.one_of(("float32", "float32", "float16"))

    def linear(x: Tensor, m: int) -> Tensor:
        return d.scaled(nf.matmul(x, d.new((x.shape[-1], m), dtype)), x.shape[-1]) + d.new((m,), dtype)

    def split(x: Tensor) -> Tensor:
        return nf.permute_dims(nf.reshape(x, (t, heads, n // heads)), (1, 0, 2))

    x = d.view((t, n), dtype)
    normal = nn.layer_norm(x, d.new((n,), dtype), d.new((n,), dtype))
    q, k, v = (split(linear(normal, n)) for _ in "qkv")
    y = nn.scaled_dot_product_attention(q, k, v, causal=d.maybe())
    x = x + linear(nf.reshape(nf.permute_dims(y, (1, 0, 2)), (t, n)), n)
    return [x + linear(nn.gelu(linear(nn.rms_norm(x, d.new((n,), dtype)), hidden)), n)]


# --- elements and places --------------------------------------------------------------------------------------------


@motif
def elements(d: Drawing) -> Made:
    """Functions, pairs, reductions and movements, one after another."""
    x = d.view(d.shape(), d.one_of(ANY))
    for _ in range(d.whole(1, 5)):
        x = step(d, d.one_of(("function", "pair", "pair", "row", "reduce", "move", "move", "repeat", "least")), x)
    return [x]


def step(d: Drawing, kind: str, x: Tensor) -> Tensor:
    """One operation of a chain; x itself where it does not fit."""
    if kind == "function":
        return d.changed(x)
    if kind == "pair":
        return d.paired(x, d.view(x.shape, x.dtype.name))
    if not x.ndim:
        return x
    axis = d.random.randrange(x.ndim)
    if kind == "row":
        return d.paired(x, d.new(d.one_of(((*x.shape[:-1], 1), x.shape[-1:])), x.dtype.name))
    if kind == "reduce":
        return d.reduced(x)
    if kind == "repeat":
        return nf.repeat(x, d.one_of((1, 2, 3)), axis=axis) if x.size < 10_000 else x
    if kind == "least":
        return d.small(x - nf.max(x, axis=axis, keepdims=True)) if x.size and x.dtype.kind == "f" else x
    return moved(d, x, axis)


def moved(d: Drawing, x: Tensor, axis: int) -> Tensor:
    """The same elements in other places."""
    kind = d.one_of(("turn", "reshape", "cut", "join", "pad", "roll"))
    if kind == "turn":
        return nf.permute_dims(x, d.random.sample(range(x.ndim), x.ndim))
    if kind == "reshape":
        return nf.reshape(x, d.one_of(((-1,), (1, -1), (x.size, 1)))) if x.size else x
    if kind == "cut":
        return x[tuple(d.one_of(CUTS) for _ in x.shape)]
    if kind == "roll" or x.size > 20_000:
        return nf.roll(x, d.whole(-3, 3), axis=axis)
    if kind == "join":
        return nf.concat([x, d.view(x.shape, x.dtype.name), x], axis=axis)
    return nf.pad(x, [(d.whole(0, 2), d.whole(0, 2)) for _ in x.shape])


PLACED = ("take", "take", "take_along", "scatter", "scatter_add", "scatter_add", "put_along")
ORDERED = ("sort", "argsort", "topk", "extreme", "one_hot", "cumulative", "search")


@motif
def places(d: Drawing) -> Made:
    """Elements found by data: taken from there, put there, added there."""
    dtype = d.one_of((*FLOATS, "int32", "int8", "uint8"))
    shape = tuple(max(1, n) for n in d.shape(d.one_of((1, 2, 2, 3))))
    x, axis = d.view(shape, dtype), d.random.randrange(len(shape))
    n, where = shape[axis], d.one_of(((), (d.size(),), (d.size(),), (2, 3), (0,)))
    kind = d.one_of(PLACED)
    if kind == "take":
        return [d.finished(nf.take(x, d.positions(where, n), axis=axis))]
    if kind == "take_along":
        return [
            d.finished(nf.take_along_axis(x, d.positions((*shape[:axis], d.size(), *shape[axis + 1 :]), n), axis=axis))
        ]
    if kind == "put_along":
        return [d.finished(apply("put_along", x, d.positions(shape, 7), axis=axis, n=7))]
    updates = d.view((*shape[:axis], *where, *shape[axis + 1 :]), dtype)
    put = nf.scatter if kind == "scatter" else nf.scatter_add
    return [d.finished(put(x, d.positions(where, n), updates, axis=axis))]


@motif
def order(d: Drawing) -> Made:
    """What comparing elements with each other gives."""
    shape = tuple(max(1, n) for n in d.shape(d.one_of((1, 2, 2, 3))))
    x, axis = d.view(shape, d.one_of((*FLOATS, "int32", "int8", "uint8"))), d.random.randrange(len(shape))
    kind = d.one_of(ORDERED)
    if kind == "topk":
        return list(nf.topk(x, d.whole(1, shape[axis]), axis=axis))
    if kind == "search":
        return [nf.searchsorted(nf.sort(d.new((d.size(),))), d.new((d.size(),)))]
    return [
        d.finished(
            {
                "sort": lambda: nf.sort(x, axis=axis, descending=d.maybe()),
                "argsort": lambda: nf.argsort(x, axis=axis, descending=d.maybe()),
                "extreme": lambda: d.one_of((nf.argmax, nf.argmin))(x, axis=d.one_of((axis, None))),
                "one_hot": lambda: nf.one_hot(d.positions((d.size(),), 5), 5),
                "cumulative": lambda: nf.cumulative_sum(x, axis=axis),
            }[kind]()
        )
    ]


@motif
def sums_at_places(d: Drawing) -> Made:
    """Many rows added at some places, as an embedding's gradient is; some places lie outside."""
    n_rows, n, width = (
        d.one_of((2, 100, 1023, 1024, 1025, 2100)),
        d.one_of((16, 17, 40, 200)),
        d.one_of((31, 32, 33, 64)),
    )
    dtype, before = d.one_of(("float32", "float32", "int32", "float16", "int8")), d.one_of(((), (), (2,)))
    updates, i = d.view((*before, n_rows, width), dtype), d.positions((n_rows,), n)
    i = d.one_of((lambda i: i, lambda i: i, lambda i: i - 3, lambda i: i * 2))(i)
    if d.maybe():
        return [d.finished(apply("put_add", updates, i, axis=len(before), n=n))]
    x = d.view((*before, n, width), dtype)
    return [d.finished(nf.scatter_add(x, nf.clip(i, 0, n - 1), updates, axis=len(before)))]


# --- gradients ------------------------------------------------------------------------------------------------------


@motif
def layers(d: Drawing) -> Made:
    """Linear layers with activations."""
    sizes = [d.size() for _ in range(4)]
    x = d.view((d.size(), sizes[0]))
    for a, b in pairwise(sizes):
        x = d.changed(d.small(nf.matmul(x, d.new((a, b))) + d.new((b,))))
    return [x]


FORWARD = (
    product, convolution, pooling, attention, rows, places, order, elements, contraction, layers, depthwise,
    transformer, transposed_convolution, convolutions_3x3,
)  # fmt: skip


@motif
def backwards(d: Drawing) -> Made:
    """Gradients of another motif with respect to all real inputs, perhaps subtracted from these."""
    before = len(d.inputs)
    y, *more = d.one_of(FORWARD)(d)
    sources = [x for x in d.inputs[before:] if x.dtype.kind == "f"]
    if y.dtype.kind != "f" or not sources:
        return [y, *more]
    found = gradients([y], [d.new(y.shape, y.dtype.name)], sources)
    if d.maybe(0.3):
        found = [x - g * 0.5 for x, g in zip(sources, found, strict=True)]
    return [*found, y] if d.maybe(0.3) else found
