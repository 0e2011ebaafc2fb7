"""fit: a known task reaches a known loss; runs continue to the same bits; callbacks, metrics, data."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from learning import DEVICES, array, on
from nearfield import nn, optim, train
from nearfield.data import Dataset, order
from nearfield.errors import FormatError, ShapeError
from nearfield.random import Generator
from nearfield.train.progress import Progress


@pytest.fixture(params=DEVICES, autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with on(request.param):
        yield request.param


def spirals(n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three arms of a spiral: [n, 2], labels [n]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    r = np.sqrt(rng.uniform(0.02, 1, n))
    angle = r * 4 + labels * 2 * np.pi / 3 + rng.normal(size=n) * 0.1
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1).astype("float32") * 2, labels.astype("int32")


def net() -> nn.Sequential:
    g = Generator(7)
    return nn.Sequential(
        nn.Linear(2, 32, generator=g), nn.relu, nn.Linear(32, 32, generator=g), nn.relu, nn.Linear(32, 3, generator=g)
    )


def noisy() -> nn.Sequential:
    """With every kind of state: running statistics, a generator of its own, and the default one."""
    g = Generator(3)
    return nn.Sequential(
        nn.Linear(2, 8, bias=False, generator=g),  # a bias before BatchNorm has no effect, and noise for a gradient
        nn.BatchNorm(8),
        nn.relu,
        nn.Dropout(0.2, generator=Generator(4)),
        nn.Dropout(0.1),
        nn.Linear(8, 3, generator=g),
    )


def run(model: nn.Module, data: Any = None, **options: Any) -> train.History:
    defaults: dict[str, Any] = {"loss": nn.losses.cross_entropy, "optimizer": optim.Adam(1e-2), "verbose": False}
    return train.fit(model, spirals() if data is None else data, **(defaults | options))


def bits(model: nn.Module) -> list[bytes]:
    return [t.numpy().tobytes() for t in model.state_tensors().values()]


def test_a_known_task_reaches_a_known_loss() -> None:
    model = net()
    history = run(model, epochs=40, metrics=["accuracy"], validation=spirals(90, seed=1))
    assert history["loss"][-1] < 0.12
    assert history["val_accuracy"][-1] > 0.95
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.epochs == 40
    assert not model.training


def test_the_first_epoch_is_what_numpy_says() -> None:
    """One linear layer, SGD: the whole epoch by hand, the order of the examples too."""
    x, y = array(10, 3), array(10, 1, seed=1)
    model = nn.Linear(3, 1, generator=Generator(1))
    w, b, losses = model.weight.numpy().astype("float64"), np.zeros(1), 0.0
    rows = order(10, 5, 0)
    for i in range(0, 10, 4):
        part = rows[i : i + 4]
        d = x[part] @ w + b - y[part]
        losses += (d**2).sum()
        w, b = w - 0.1 * 2 * x[part].T @ d / len(part), b - 0.1 * 2 * d.mean(0)
    history = run(
        model,
        (x, y),
        loss=nn.losses.mse,
        optimizer=optim.SGD(0.1),
        batch_size=4,
        seed=5,
        metrics=["mae", "mse", "rmse"],
    )
    np.testing.assert_allclose(model.weight.numpy(), w, rtol=1e-5)
    np.testing.assert_allclose(model.bias.numpy(), b, rtol=1e-5)
    np.testing.assert_allclose(history["loss"], [losses / 10], rtol=1e-5)
    np.testing.assert_allclose(history["rmse"][0] ** 2, losses / 10, rtol=1e-5)


def test_compiled_or_not_is_the_same() -> None:
    results = []
    for compiled in (True, False):
        nf.random.seed(0)
        model = noisy()
        history = run(model, epochs=2, compiled=compiled, validation=0.2, metrics=["accuracy"], clip_norm=1.0)
        results.append((history, model.state()))
    np.testing.assert_allclose(results[0][0]["loss"], results[1][0]["loss"], rtol=1e-5)
    for a, b in zip(results[0][1].values(), results[1][1].values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


class StopAt(train.Callback):
    """Ends the run after so many steps, as a power cut would."""

    def __init__(self, step: int) -> None:
        self.at = step

    def on_batch_end(self, run: train.Run) -> None:
        if run.step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("checkpoint", "cut"),
    [({"every": 1}, 20), ({"every_steps": 3}, 11), ({"every_steps": 4}, 16)],
    ids=["epoch", "step", "last batch"],
)
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, checkpoint: dict[str, int], cut: int) -> None:
    def again() -> tuple[nn.Module, optim.Optimizer]:
        nf.random.seed(0)
        return noisy(), optim.Adam(optim.cosine(1e-2, 30))

    settings: dict[str, Any] = {
        "epochs": 4,
        "validation": 0.2,
        "metrics": ["accuracy", "f1"],
        "seed": 3,
        "batch_size": 24,
    }
    model, optimizer = again()
    whole = run(model, optimizer=optimizer, callbacks=[train.EarlyStopping(patience=9)], **settings)
    path = tmp_path / "run.safetensors"
    second, other = again()
    broken = run(
        second,
        optimizer=other,
        callbacks=[train.EarlyStopping(patience=9), train.Checkpoint(path, **checkpoint), StopAt(cut)],
        **settings,
    )
    assert broken.stopped.startswith("interrupted")
    nf.random.seed(99)
    third, fresh = noisy(), optim.Adam(optim.cosine(1e-2, 30))
    resumed = run(third, optimizer=fresh, callbacks=[train.EarlyStopping(patience=9)], resume=path, **settings)
    assert resumed.to_dict() == whole.to_dict()
    assert bits(third) == bits(model)
    assert [t.numpy().tobytes() for t in fresh.state_tensors().values()] == [
        t.numpy().tobytes() for t in optimizer.state_tensors().values()
    ]


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run(noisy(), callbacks=[train.Checkpoint(path)])
    with pytest.raises(FormatError, match="seed was 0 and is 1 now"):
        run(noisy(), resume=path, seed=1)
    with pytest.raises(FormatError, match="model: "):
        run(net(), resume=path)
    with pytest.raises(FormatError, match="optimizer: "):
        run(noisy(), resume=path, optimizer=optim.SGD(0.1))
    noisy().save(tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match="this is no checkpoint of fit"):
        run(noisy(), resume=tmp_path / "model.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "run.safetensors"]


def test_a_best_checkpoint_is_the_best(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    history = run(
        net(), epochs=5, optimizer=optim.SGD(3.0), callbacks=[train.Checkpoint(path, best_only=True, monitor="loss")]
    )
    best = int(np.argmin(history["loss"])) + 1
    other = run(net(), epochs=best, optimizer=optim.SGD(3.0), resume=path)
    assert other["loss"] == history["loss"][:best]


def test_early_stopping_restores_the_best() -> None:
    model = net()
    kept: dict[int, list[bytes]] = {}

    class Watch(train.Callback):
        def on_epoch_end(self, run: train.Run) -> None:
            kept[run.epoch] = bits(run.model)

    history = run(
        model, epochs=50, optimizer=optim.SGD(2.0), validation=0.3, callbacks=[Watch(), train.EarlyStopping(patience=2)]
    )
    assert history.epochs < 50
    assert "val_loss has not become better for 2 epochs" in history.stopped
    assert bits(model) == kept[int(np.argmin(history["val_loss"]))]


def test_rates_follow_callbacks() -> None:
    seen: list[float] = []

    class Watch(train.Callback):
        def on_epoch_end(self, run: train.Run) -> None:
            seen.append(round(run.optimizer.learning_rate.item(), 6))

    run(net(), epochs=3, callbacks=[train.LearningRate(lambda epoch: 0.1 / (epoch + 1)), Watch()])
    assert seen == [0.1, 0.05, 0.033333]
    seen.clear()
    run(
        net(),
        epochs=4,
        optimizer=optim.SGD(0.4),
        callbacks=[train.ReduceOnPlateau("loss", patience=1, min_delta=100.0), Watch()],
    )
    assert seen == [0.4, 0.2, 0.1, 0.05]


def test_a_bad_loss_is_named() -> None:
    x, y = spirals()
    x = x.copy()
    x[order(240, 0, 1)[70]] = np.nan  # in the third batch of the second epoch, and somewhere in the first
    first = order(240, 0, 0).index(order(240, 0, 1)[70]) // 32
    with pytest.warns(
        RuntimeWarning,
        match=rf"fit: the loss is not finite since step {first + 1} of epoch 1; .*Lower the learning rate \(now 0.01\)",
    ):
        history = run(net(), (x, y), epochs=5)
    assert history.epochs == 1
    assert "not finite" in history.stopped


def test_ctrl_c_keeps_the_model_usable() -> None:
    model = net()
    history = run(model, epochs=3, callbacks=[StopAt(10)])
    assert history.stopped == "interrupted in epoch 2 after step 10"
    assert history.epochs == 1
    assert np.isfinite(train.predict(model, spirals()[0]).numpy()).all()
    assert run(model, epochs=1).stopped == ""


def test_any_iterable_of_batches_will_do() -> None:
    x, y = spirals(64)
    batches = [(x[:32], y[:32]), (x[32:], y[32:])]
    one, two = net(), net()
    history = run(one, batches, epochs=2, validation=batches)
    assert history.epochs == 2
    again = run(two, [(nf.asarray(a), nf.asarray(b)) for a, b in batches], epochs=2)
    assert history["loss"] == again["loss"]
    with pytest.raises(TypeError, match="data is an iterator, which is used up after one epoch"):
        run(net(), iter(batches))
    with pytest.raises(TypeError, match="validation is a fraction but data is an iterable"):
        run(net(), batches, validation=0.5)
    with pytest.raises(ValueError, match="the data has no batch"):
        run(net(), [])


def test_frozen_layers_stay() -> None:
    model = net()
    model[0].freeze()
    before = model[0].weight.numpy()
    run(model)
    np.testing.assert_array_equal(model[0].weight.numpy(), before)


def test_several_inputs() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            self.left, self.right = nn.Linear(3, 4, generator=Generator(1)), nn.Linear(2, 4, generator=Generator(2))

        def __call__(self, a: nf.Tensor, b: nf.Tensor) -> nf.Tensor:
            return nf.sum(self.left(a) * self.right(b), axis=1)

    a, b = array(64, 3), array(64, 2)
    model = Product()
    history = run(model, (a, b, a[:, 0] * b[:, 1]), loss=nn.losses.mse, epochs=60, optimizer=optim.Adam(0.03))
    assert history["loss"][-1] < 0.02
    assert train.predict(model, (a, b), batch_size=10).shape == (64,)


def test_evaluate_changes_nothing() -> None:
    model = noisy()
    before, (x, y) = bits(model), spirals()
    found = train.evaluate(model, (x, y), loss=nn.losses.cross_entropy, metrics=["accuracy", "top_5"], batch_size=50)
    model.eval()
    scores = model(nf.asarray(x)).numpy()
    np.testing.assert_allclose(found["accuracy"], (scores.argmax(1) == y).mean(), rtol=1e-6)
    np.testing.assert_allclose(found["loss"], nf.mean(nn.losses.cross_entropy(nf.asarray(scores), y)).item(), rtol=1e-5)
    assert found["top_5"] == 1
    assert bits(model) == before
    assert train.evaluate(model, (x, y), metrics=["f1"]).keys() == {"f1"}


def test_metrics() -> None:
    scores, labels = array(50, 4), array(50, dtype="int32") % 4
    p, t = nf.asarray(scores), nf.asarray(labels)
    guess = scores.argmax(1)
    np.testing.assert_array_equal(train.accuracy(p, t).numpy(), guess == labels)
    np.testing.assert_array_equal(
        train.accuracy(p, nf.asarray(np.eye(4, dtype="float32")[labels])).numpy(), guess == labels
    )
    rank = (scores > scores[np.arange(50), labels][:, None]).sum(1)
    np.testing.assert_array_equal(train.top_k(p, t, 2).numpy(), rank < 2)
    table = np.zeros((4, 4))
    np.add.at(table, (labels, guess), 1)
    np.testing.assert_array_equal(train.confusion_matrix(p, t).numpy(), table)
    np.testing.assert_array_equal(train.confusion_matrix(nf.asarray(guess.astype("int32")), t, 4).numpy(), table)
    hits, shown, there = np.diag(table), table.sum(0), table.sum(1)
    np.testing.assert_allclose(train.f1(p, t), (2 * hits / (shown + there)).mean(), rtol=1e-6)
    truth = (array(50, seed=2) > 0).astype("float32")
    one = nf.asarray(scores[:, 0])
    np.testing.assert_array_equal(train.accuracy(one, nf.asarray(truth)).numpy(), (scores[:, 0] > 0) == (truth > 0))
    said = scores[:, 0] > 0
    np.testing.assert_allclose(
        train.f1(one, nf.asarray(truth)), 2 * (said & (truth > 0)).sum() / (said.sum() + truth.sum()), rtol=1e-6
    )
    column = nf.reshape(one, (50, 1))  # as nn.Linear(n, 1) gives them, beside targets without that axis
    for measure in (train.accuracy, train.f1, train.confusion_matrix):
        want, got = measure(one, nf.asarray(truth)), measure(column, nf.asarray(truth))
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))
    with pytest.raises(ValueError, match="there is no metric 'acuracy'; accepted are accuracy, f1, mae"):
        run(net(), metrics=["acuracy"])


def test_a_metric_can_be_any_function() -> None:
    history = run(
        net(),
        metrics=[
            lambda p, t: nf.max(p, axis=1),
            train.Metric("count", lambda p, t: nf.sum(nf.ones_like(t)), lambda s, n: s),
        ],
    )
    assert list(history) == ["loss", "<lambda>", "count"]
    assert history["count"] == [240]


def test_batches() -> None:
    x, y = np.arange(20, dtype="float32").reshape(10, 2), np.arange(10, dtype="int32")
    for arrays in ((x, y), (nf.asarray(x), nf.asarray(y)), (x.tolist(), y.tolist())):
        data = Dataset(*arrays)
        parts = list(data.batches(4))
        assert [b[1].tolist() for b in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        np.testing.assert_array_equal(parts[1][0].numpy(), x[4:8])
        assert data.count(4) == 3
        assert [b[1].tolist() for b in data.batches(4, drop_last=True)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        mixed = [i for b in data.batches(4, shuffle=True, seed=1) for i in b[1].tolist()]
        assert mixed == order(10, 1)
        assert mixed != list(range(10))
        assert [i for b in data.batches(4, shuffle=True, seed=1, skip=1) for i in b[1].tolist()] == mixed[4:]
        assert order(10, 1, 1) != mixed
        left, right = data.split(0.3, seed=2)
        assert (len(left), len(right)) == (7, 3)
        assert sorted(left[:][1].tolist() + right[:][1].tolist()) == list(range(10))
        assert data[-1][1].item() == 9
        doubled = data.map(lambda x, y: (x * 2, y))
        np.testing.assert_array_equal(doubled[:3][0].numpy(), 2 * x[:3])
        assert repr(data).startswith("Dataset(10 examples of float32[2], int32[]")
    with pytest.raises(ShapeError, match=r"the first axes of \(10, 2\), \(3,\) count different numbers of examples"):
        Dataset(x, y[:3])


def test_the_order_is_the_same_for_ever() -> None:
    assert order(8, 0) == [4, 2, 3, 6, 7, 5, 1, 0]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_tells_rate_and_time_left() -> None:
    screen = Screen()
    line = Progress(3, verbose=True, file=screen)
    line.begin(0, 100)
    line.show(25, {"loss": 0.51234})
    line.end({"loss": 0.4, "accuracy": 0.75})
    first, last = screen.getvalue().split("\r")[1:]
    assert first.startswith("epoch 1/3 ━━━━━━────────────────── 25/100 · ")
    assert first.rstrip().endswith("steps/s · loss 0.5123")
    assert " left · " in first
    assert last.startswith("epoch 1/3 · 0.0 s · loss 0.4 · accuracy 0.75 ")
    assert len(last.rstrip("\n")) >= len(first)
    plain = io.StringIO()
    line = Progress(3, verbose=True, file=plain)
    line.begin(1, 0)
    line.show(25, {})
    line.end({"loss": 0.4})
    assert plain.getvalue().startswith("epoch 2/3 · ")
    quiet = Screen()
    line = Progress(3, verbose=False, file=quiet)
    line.begin(1, 5)
    line.show(1, {})
    line.end({})
    assert quiet.getvalue() == ""


def test_fit_is_silent_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    run(net(), epochs=2)
    assert capsys.readouterr() == ("", "")
    run(net(), epochs=2, verbose=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 2
