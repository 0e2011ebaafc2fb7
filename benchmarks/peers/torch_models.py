"""The operators, models and training steps in eager PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import weights
from benchmarks.models import Encoder, initial
from benchmarks.workloads import WORKLOADS, Job, Workload

from .architectures import encoder, model

DEVICE = "cpu"  # graphics.py sets "cuda"


def tensor(values: Any) -> Any:
    """A tensor on the device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(DEVICE)


class TorchBuilder:
    """The operations as PyTorch has them (architectures.Builder); weights are made once."""

    def __init__(self, trained: bool = False) -> None:
        self.kept: dict[str, Any] = {}
        self.trained = trained

    def keep(self, name: str, make: Callable[[], Any]) -> Any:
        """A weight by name."""
        if name not in self.kept:
            self.kept[name] = tensor(make()).requires_grad_(self.trained)
        return self.kept[name]

    def pair(self, name: str, make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """A weight and a bias."""
        weight = self.keep(f"{name}.weight", lambda: make()[0])
        return weight, self.keep(f"{name}.bias", lambda: make()[1])

    def convolution(self, x: Any, name: str, ci: int, co: int, size: int, stride: int, groups: int, act: str) -> Any:
        weight, bias = self.pair(name, lambda: weights.folded_convolution(name, ci, co, size, groups))
        x, pad = _padded(x, size, stride)
        y = functional.conv2d(x, weight, bias, stride, pad, 1, groups)
        return {"relu6": functional.relu6, "relu": functional.relu, "": lambda z: z}[act](y)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def relu(self, x: Any) -> Any:
        return functional.relu(x)

    def gelu(self, x: Any, approximate: bool) -> Any:
        return functional.gelu(x, approximate="tanh" if approximate else "none")

    def max_pool(self, x: Any) -> Any:
        return functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)

    def mean_space(self, x: Any) -> Any:
        return x.mean((2, 3))

    def dense(self, x: Any, name: str, n_in: int, n_out: int) -> Any:
        weight, bias = self.pair(name, lambda: weights.dense(name, n_in, n_out))
        return x @ weight + bias

    def constant(self, name: str, shape: tuple[int, ...], kind: str, fan_in: int = 1) -> Any:
        return self.keep(name, lambda: weights.named(name, shape, kind, fan_in))

    def take(self, table: Any, ids: Any) -> Any:
        return functional.embedding(ids, table)

    def layer_norm(self, x: Any, name: str, d: int, eps: float) -> Any:
        return functional.layer_norm(x, (d,), *self.pair(name, lambda: weights.norm(name, d)), eps)

    def split_heads(self, x: Any, heads: int, d: int) -> Any:
        return x.reshape(x.shape[0] if x.ndim == 3 else 1, -1, heads, d).transpose(1, 2)

    def merge_heads(self, x: Any, width: int) -> Any:
        return x.transpose(1, 2).reshape(x.shape[0], -1, width)

    def attention(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)

    def mask_bias(self, mask: Any) -> Any:
        return (1.0 - mask[:, None, None, :].float()) * -10000.0

    def place_bias(self, position: Any, n: int) -> Any:
        return (torch.arange(n, device=DEVICE) > position).float()[None, None, None] * -10000.0

    def write(self, cache: Any, row: Any, position: Any) -> Any:
        return torch.where((torch.arange(cache.shape[2], device=DEVICE) == position)[None, None, :, None], row, cache)

    def scores(self, x: Any, table: Any) -> Any:
        return x.reshape(1, -1) @ table.T


def _padded(x: Any, size: int, stride: int) -> tuple[Any, int]:
    """x and what is still to pad on each side: "same", which with a stride is not the same on both."""
    n = x.shape[-1]
    total = max((-(-n // stride) - 1) * stride + size - n, 0)
    low, high = total // 2, total - total // 2
    return (x, low) if low == high else (functional.pad(x, (low, high, low, high)), 0)


def operator(workload: Workload, job: Job) -> Callable[[], Any]:
    """An operator of its inputs."""
    spec = workload.spec
    fixed = [tensor(w) for w in getattr(job.function, "weights", [])]
    xs = [tensor(x) for x in job.inputs.values()]
    if spec["kind"] == "conv":
        x, w = tensor(xs[0].permute(0, 3, 1, 2).cpu().numpy()), tensor(fixed[0].permute(3, 2, 0, 1).cpu().numpy())
        return lambda: functional.conv2d(x, w, None, 1, spec["window"] // 2, 1, spec["groups"])

    def add_rows(ids: Any, rows: Any) -> Any:
        return torch.zeros(spec["n"], spec["d"], device=DEVICE).index_add_(0, ids, rows)

    function = {
        "matmul": torch.matmul,
        "chain": lambda a, b, c, d: torch.tanh(a * b + c) * torch.sigmoid(d),
        "softmax": lambda x: torch.softmax(x, -1),
        "layer_norm": lambda x, w, b: functional.layer_norm(x, (spec["n"],), w, b, 1e-5),
        "attention": functional.scaled_dot_product_attention,
        "embedding": lambda ids, table: functional.embedding(ids, table),
        "embedding_gradient": add_rows,
    }[spec["kind"]]
    return lambda: function(*xs, *fixed)


def training(name: str, job: Job) -> Callable[[], Any]:
    """A step of Adam; its result is the loss."""
    y, *xs = (tensor(x) for x in job.inputs.values())
    forward, parameters = {"train_mlp": mlp, "train_cnn": cnn, "train_encoder": classifier}[name](xs)
    with torch.enable_grad():
        forward()  # makes the parameters
    optimizer = torch.optim.Adam(parameters(), 1e-3, capturable=DEVICE == "cuda")
    target = y.long()

    def step() -> Any:
        with torch.enable_grad():
            optimizer.zero_grad()
            loss = functional.cross_entropy(forward(), target)
            loss.backward()
            optimizer.step()
            return loss.detach()

    return step


def _parameter(values: Any) -> Any:
    return tensor(values).requires_grad_(True)


def mlp(xs: list[Any]) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
    """The scores, and the parameters."""
    sizes = [(784, 512), (512, 512), (512, 10)]
    p = [(_parameter(initial(11 + n, s, s[0])), _parameter(np.zeros(s[1], np.float32))) for n, s in enumerate(sizes)]

    def forward() -> Any:
        x = xs[0]
        for n, (w, b) in enumerate(p):
            x = x @ w + b
            x = functional.relu(x) if n < 2 else x
        return x

    return forward, lambda: [t for pair in p for t in pair]


def cnn(xs: list[Any]) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
    """The scores, and the parameters."""
    x = tensor(xs[0].permute(0, 3, 1, 2).cpu().numpy())
    shapes = [((32, 1, 3, 3), 9), ((64, 32, 3, 3), 288), ((12544, 128), 12544), ((128, 10), 128)]
    p = [_parameter(initial(11 + n, shape, fan_in)) for n, (shape, fan_in) in enumerate(shapes)]
    b = [_parameter(np.zeros(n, np.float32)) for n in (32, 64, 128, 10)]

    def forward() -> Any:
        h = functional.relu(
            functional.conv2d(functional.relu(functional.conv2d(x, p[0], b[0], 1, 1)), p[1], b[1], 1, 1)
        )
        h = functional.max_pool2d(h, 2).flatten(1)
        return functional.relu(h @ p[2] + b[2]) @ p[3] + b[3]

    return forward, lambda: [*p, *b]


def classifier(xs: list[Any]) -> tuple[Callable[[], Any], Callable[[], list[Any]]]:
    """The scores, and the parameters."""
    b = TorchBuilder(trained=True)
    d = Encoder.SIZES["bert_mini"][1]
    return lambda: b.dense(encoder(b, "bert_mini", *xs).mean(1), "bert_mini/classes", d, 2), lambda: list(
        b.kept.values()
    )


def made(workload: Workload) -> Callable[[], Any]:
    """A workload, ready to run; the result is a tensor."""
    torch.set_grad_enabled(False)
    job = workload.make()
    if workload.group == "training":
        return training(workload.name, job)
    if workload.group == "operator":
        return operator(workload, job)
    builder, xs = TorchBuilder(), [tensor(x) for x in job.inputs.values()]
    if workload.spec["kind"] == "image":
        xs = [xs[0].permute(0, 3, 1, 2)]  # in memory, channels last
    name = next(name for name in WORKLOADS if workload.name.startswith(name))  # a batch size may follow
    return lambda: model(builder, name, xs)[0]


def array_job(name: str) -> Callable[[], Any]:
    """A workload of the table; the result is a NumPy array."""
    run = made(WORKLOADS[name])
    return lambda: run().numpy()
