"""Optimisers against their formulas in NumPy; schedules; limits; state that survives files and compiled steps."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from learning import DEVICES, array, on, to_dtype
from nearfield import nn, optim
from nearfield.errors import FormatError, ShapeError
from nearfield.jit import jit

RATE = 0.1


@pytest.fixture(params=DEVICES, autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with on(request.param):
        yield request.param


def sgd(
    p: np.ndarray, g: np.ndarray, s: dict, t: int, *, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0
) -> np.ndarray:
    g = g + decay * p
    s["m"] = momentum * s.get("m", 0) + g
    return p - RATE * (g + momentum * s["m"] if nesterov else s["m"])


def adam(p: np.ndarray, g: np.ndarray, s: dict, t: int, *, decay: float = 0.0) -> np.ndarray:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    step = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)
    return p - RATE * step - RATE * decay * p


def rmsprop(p: np.ndarray, g: np.ndarray, s: dict, t: int) -> np.ndarray:
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g * g
    return p - RATE * g / (np.sqrt(s["v"]) + 1e-8)


def lion(p: np.ndarray, g: np.ndarray, s: dict, t: int, *, decay: float = 0.0) -> np.ndarray:
    m = s.get("m", 0)
    s["m"] = 0.99 * m + 0.01 * g
    return p - RATE * (np.sign(0.9 * m + 0.1 * g) + decay * p)


OPTIMISERS: dict[str, tuple[Callable[[], optim.Optimizer], Callable[..., np.ndarray]]] = {
    "SGD": (lambda: optim.SGD(RATE), sgd),
    "SGD with momentum": (lambda: optim.SGD(RATE, momentum=0.9), lambda p, g, s, t: sgd(p, g, s, t, momentum=0.9)),
    "SGD, Nesterov": (
        lambda: optim.SGD(RATE, momentum=0.9, nesterov=True),
        lambda p, g, s, t: sgd(p, g, s, t, momentum=0.9, nesterov=True),
    ),
    "SGD with decay": (lambda: optim.SGD(RATE, weight_decay=0.1), lambda p, g, s, t: sgd(p, g, s, t, decay=0.1)),
    "Adam": (lambda: optim.Adam(RATE), adam),
    "AdamW": (lambda: optim.AdamW(RATE, weight_decay=0.1), lambda p, g, s, t: adam(p, g, s, t, decay=0.1)),
    "RMSprop": (lambda: optim.RMSprop(RATE), rmsprop),
    "Lion": (lambda: optim.Lion(RATE, weight_decay=0.1), lambda p, g, s, t: lion(p, g, s, t, decay=0.1)),
}
every_optimiser = pytest.mark.parametrize("name", OPTIMISERS)


@every_optimiser
def test_steps_follow_the_formula(name: str) -> None:
    make, formula = OPTIMISERS[name]
    model, optimizer = nn.Linear(3, 2), make()
    optimizer.init(model)
    want = {n: t.numpy().astype("float64") for n, t in model.parameters().items()}
    memory: dict[str, dict] = {n: {} for n in want}
    for t in range(1, 6):
        grads = {n: array(*p.shape, seed=t) for n, p in want.items()}
        optimizer.update(model, {n: nf.asarray(g) for n, g in grads.items()})
        want = {n: formula(p, grads[n], memory[n], t) for n, p in want.items()}
    for n, p in model.parameters().items():
        np.testing.assert_allclose(p.numpy(), want[n], rtol=2e-5, atol=1e-6)
    assert optimizer.step.item() == 5
    assert optimizer.step.dtype.name == "int32"
    assert repr(optimizer).startswith(f"{type(optimizer).__name__}(0.1")


def loss_of(model: nn.Module, x: nf.Tensor, y: nf.Tensor) -> nf.Tensor:
    return nf.mean(nn.losses.mse(model(x), y))


@every_optimiser
def test_a_compiled_step_is_the_plain_step(name: str) -> None:
    x, y = nf.asarray(array(8, 3)), nf.asarray(array(8, 2, seed=1))
    results = []
    for compiled in (False, True):
        nf.random.seed(1)
        model, optimizer = nn.Linear(3, 2), OPTIMISERS[name][0]()
        optimizer.init(model)

        def step(
            x: nf.Tensor, y: nf.Tensor, model: nn.Module = model, optimizer: optim.Optimizer = optimizer
        ) -> nf.Tensor:
            value, grads = nn.value_and_grad(model, loss_of)(model, x, y)
            optimizer.update(model, grads)
            return value

        run = jit(step, state=[model, optimizer]) if compiled else step
        for n in range(4):
            if n == 2:
                optimizer.learning_rate = 0.01
            value = run(x, y)
        results.append(
            [value.numpy(), *(t.numpy() for t in (*model.state().values(), *optimizer.state_tensors().values()))]
        )
        if compiled:
            assert len(run.recordings) == 1, "a new learning rate compiles nothing"
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_optimiser
def test_a_loss_goes_down(name: str) -> None:
    model, optimizer = nn.Linear(3, 1), OPTIMISERS[name][0]()
    optimizer.learning_rate = 0.02
    x = nf.asarray(array(32, 3))
    y = nf.asarray(array(32, 3) @ np.array([[1.0], [-2.0], [0.5]], "float32"))
    losses = []
    for _ in range(60):
        value, grads = nn.value_and_grad(model, loss_of)(model, x, y)
        optimizer.update(model, grads)
        losses.append(value.item())
    assert losses[-1] < 0.6 * losses[0]


@every_optimiser
def test_state_survives_a_file(name: str, tmp_path: Path) -> None:
    model, optimizer, other = nn.Linear(3, 2), OPTIMISERS[name][0](), OPTIMISERS[name][0]()
    optimizer.init(model)
    for seed in range(2):
        optimizer.update(model, {n: nf.asarray(array(*p.shape, seed=seed)) for n, p in model.parameters().items()})
    optimizer.save(tmp_path / "o.safetensors")
    other.init(model).load(tmp_path / "o.safetensors")
    assert other.state_tensors().keys() == optimizer.state_tensors().keys()
    for n, t in optimizer.state_tensors().items():
        np.testing.assert_array_equal(other.state_tensors()[n].numpy(), t.numpy())


def test_a_file_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optim.Adam().init(model).save(tmp_path / "adam.safetensors")
    with pytest.raises(FormatError, match=r"RMSprop.load: .* has 'mean"):
        optim.RMSprop().init(model).load(tmp_path / "adam.safetensors")
    with pytest.raises(FormatError, match=r"SGD.load: .* lacks 'momentum.bias'"):
        optim.SGD(0.1, momentum=0.9).init(model).load(tmp_path / "adam.safetensors")


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Linear(2, 2).freeze(), nn.Linear(2, 1))
    before = model[0].weight
    optimizer = optim.Adam(0.1).init(model)
    _, grads = nn.value_and_grad(model, loss_of)(model, nf.ones((3, 2)), nf.zeros((3, 1)))
    optimizer.update(model, grads)
    assert model[0].weight is before
    assert not any("layers.0" in name for name in optimizer.slots)


def test_float16_parameters_have_float32_slots() -> None:
    model = to_dtype(nn.Linear(3, 2), "float16")
    optimizer = optim.Adam(1e-3).init(model)
    optimizer.update(model, {n: nf.full(p.shape, 1e-4, dtype="float16") for n, p in model.parameters().items()})
    assert model.weight.dtype.name == "float16"
    assert {t.dtype.name for t in optimizer.slots.values()} == {"float32"}
    np.testing.assert_allclose(model.bias.numpy(), -1e-3, rtol=1e-2)


def test_wrong_gradients_say_what_is_wrong() -> None:
    model, optimizer = nn.Linear(3, 2), optim.SGD(0.1)
    with pytest.raises(KeyError, match=r"SGD.update: no trainable parameter is called 'w'"):
        optimizer.update(model, {"w": nf.zeros((3, 2))})
    with pytest.raises(
        ShapeError,
        match=r"SGD.update: the gradient of 'weight' has shape \(2, 3\); accepted is the parameter's, \(3, 2\)",
    ):
        optimizer.update(model, {"weight": nf.zeros((2, 3))})
    with pytest.raises(ValueError, match="nesterov=True with momentum=0"):
        optim.SGD(0.1, nesterov=True)


T = np.arange(0, 40)
SCHEDULES = {
    "constant(0.5)": (optim.constant(0.5), np.full(40, 0.5)),
    "linear(1, 0.2, 20)": (optim.linear(1, 0.2, 20), 1 - 0.8 * np.minimum(T / 20, 1)),
    "step_decay(1, 0.5, 10)": (optim.step_decay(1, 0.5, 10), 0.5 ** (T // 10)),
    "exponential(1, 0.5, 10)": (optim.exponential(1, 0.5, 10), 0.5 ** (T / 10)),
    "cosine(1, 20, end=0.1)": (optim.cosine(1, 20, end=0.1), 0.1 + 0.45 * (1 + np.cos(np.pi * np.minimum(T / 20, 1)))),
    "warm_up(10, linear(1, 0, 20))": (
        optim.warm_up(10, optim.linear(1, 0, 20)),
        np.where(T < 10, T / 10, 1 - np.clip((T - 10) / 20, 0, 1)),
    ),
    "join(constant(1), 10, linear(2, 1, 10), 30, constant(0))": (
        optim.join(optim.constant(1), 10, optim.linear(2, 1, 10), 30, optim.constant(0)),
        np.where(T < 10, 1, np.where(T < 30, 2 - np.clip((T - 10) / 10, 0, 1), 0)),
    ),
}


@pytest.mark.parametrize("text", SCHEDULES)
def test_schedule(text: str) -> None:
    schedule, want = SCHEDULES[text]
    assert repr(schedule) == text
    np.testing.assert_allclose(schedule(nf.asarray(T.astype("int32"))).numpy(), want, rtol=1e-5, atol=1e-6)
    assert schedule(3).shape == ()


def test_a_schedule_is_part_of_the_step() -> None:
    model = nn.Linear(1, 1, bias=False).update({"weight": [[0.0]]})
    optimizer = optim.SGD(optim.step_decay(1.0, 0.5, 2)).init(model)
    run = jit(lambda: optimizer.update(model, {"weight": nf.full((1, 1), -1.0)}), state=[model, optimizer])
    seen = []
    for _ in range(5):
        run()
        seen.append(model.weight.item())
    np.testing.assert_allclose(seen, [1, 2, 2.5, 3, 3.25])
    assert len(run.recordings) == 1
    assert optimizer.learning_rate.item() == 0.25
    assert repr(optimizer).startswith("SGD(step_decay(1, 0.5, 2)")


def test_clipping() -> None:
    grads = {"a": nf.asarray([3.0, 0.0]), "b": nf.asarray([[4.0]])}
    assert optim.global_norm(grads).item() == 5
    short = optim.clip_by_norm(grads, 1.0)
    np.testing.assert_allclose(short["a"].numpy(), [0.6, 0])
    np.testing.assert_allclose(short["b"].numpy(), [[0.8]])
    same = optim.clip_by_norm(grads, 6.0)
    np.testing.assert_array_equal(same["b"].numpy(), [[4.0]])
    np.testing.assert_array_equal(optim.clip_by_norm({"a": nf.zeros((2,))}, 1.0)["a"].numpy(), [0, 0])
    np.testing.assert_array_equal(optim.clip_by_value(grads, 2.0)["a"].numpy(), [2, 0])
