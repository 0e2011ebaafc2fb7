"""tune: the fastest way is found, used, and remembered by later processes; measurements are told here, not taken."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn, optim, runtime
from nearfield.compiler.choice import Choices
from nearfield.deploy import measure as measure_module
from nearfield.deploy import tune as tune_module
from nearfield.errors import DeviceError

A = np.random.default_rng(0).integers(-3, 4, (70, 40)).astype("float32")
B = np.random.default_rng(1).integers(-3, 4, (40, 50)).astype("float32")
QUESTION = "wgsl tile"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that was measured elsewhere, and nothing left for other tests."""
    monkeypatch.setenv("NEARFIELD_CACHE", str(tmp_path / "cache"))
    runtime._state.choices.clear()
    runtime.forget_programs()
    yield
    runtime._state.choices.clear()
    runtime.forget_programs()


def told(monkeypatch: pytest.MonkeyPatch, fastest: str) -> list[Choices]:
    """Runs take 1 s, with a choice that contains the text half of it."""
    tried: list[Choices] = []

    def seconds(self: object, choices: Choices) -> float:
        tried.append(choices)
        if choices.note:  # as a build would ask
            real(self, choices)  # type: ignore[arg-type]
        return 0.5 if any(fastest in answer for answer in choices.chosen.values()) else 1.0

    real = tune_module._Runs.seconds
    monkeypatch.setattr(tune_module._Runs, "seconds", seconds)
    return tried


def test_a_function_uses_the_fastest_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates are tried; the winner makes another kernel, with the same results, also after forgetting."""
    need("webgpu")
    f = nf.jit(lambda a, b: a @ b)
    with nf.use("webgpu") as device:
        np.testing.assert_array_equal(f(nf.asarray(A), nf.asarray(B)).numpy(), A @ B)
        before = next(iter(runtime._state.programs.values()))[0].program
        tried = told(monkeypatch, "rows=128")
        answers = nf.tune(f, nf.asarray(A), nf.asarray(B), rounds=1)
        ((question, winner),) = answers.items()
        assert question.startswith(QUESTION)
        assert "rows=128" in winner
        assert len(tried) == len(tried[0].asked[question])
        for fresh in (False, True):
            if fresh:  # as in another process
                runtime._state.choices.clear()
                runtime.forget_programs()
                f.forget()
            np.testing.assert_array_equal(f(nf.asarray(A), nf.asarray(B)).numpy(), A @ B)
            after = next(iter(runtime._state.programs.values()))[0].program
            assert after.kernels[0].code != before.kernels[0].code
            assert runtime.choices(device).chosen == answers


def test_what_is_hardly_faster_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that may be noise changes nothing."""
    need("webgpu")
    told(monkeypatch, "no candidate")
    with nf.use("webgpu") as device:
        nf.tune(lambda a, b: a @ b, nf.asarray(A), nf.asarray(B), rounds=1)
        assert runtime.choices(device).chosen == {}


@pytest.mark.parametrize("name", ["wasm", "webgpu"])
def test_measuring_a_step_changes_no_state(name: str) -> None:
    """A training step is run many times, and has not been run."""
    need(name)
    linear = nn.Linear(40, 50, generator=nf.random.Generator(0))
    adam = optim.Adam(0.1)
    slope = nn.value_and_grad(linear, lambda x: nf.mean(nf.square(linear(x))))

    @nf.jit
    def step(x: nf.Tensor) -> nf.Tensor:
        loss, grads = slope(x)
        adam.update(linear, grads)
        return loss

    with nf.use(name):
        before = linear.weight.numpy().copy()
        nf.tune(step, nf.asarray(A), rounds=1)
        np.testing.assert_array_equal(linear.weight.numpy(), before)
        step(nf.asarray(A))
        assert not np.array_equal(linear.weight.numpy(), before)


def exported(folder: Path) -> str:
    nf.export(lambda x: x * 2.0, folder, inputs={"x": A})
    return str(folder)


@pytest.mark.parametrize("fastest", ["wasm", "webgpu"])
def test_a_model_runs_where_it_is_fastest(fastest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user chooses a device; and so does another copy of it."""
    need("wasm")
    need("webgpu")
    monkeypatch.delenv("NEARFIELD_DEVICE", raising=False)
    monkeypatch.setattr(runtime._state, "is_chosen", False)
    path = exported(tmp_path / "model")

    def measured(model: nf.deploy.Model, device: str, *_: object) -> measure_module.Measured:
        return measure_module.Measured(device, "", 1.0, 1.0 if device == fastest else 2.0, 0.0, 0, (), "")

    monkeypatch.setattr(tune_module, "measure", measured)
    assert nf.tune(nf.load(path)) == {fastest: 1.0, ({"wasm", "webgpu"} - {fastest}).pop(): 2.0}
    model = nf.load(path)
    assert model.device.name == fastest
    y = model(nf.asarray(A))
    assert y.device == fastest
    np.testing.assert_array_equal(y.numpy(), A * 2)
    for name in ("wasm", "webgpu"):
        with nf.use(name):
            assert model.device.name == name
            assert model(nf.asarray(A)).device == name


def test_where_there_is_nothing_to_measure(tmp_path: Path) -> None:
    with nf.use("reference"), pytest.raises(DeviceError, match="reference device has one way"):
        nf.tune(lambda x: x, nf.asarray(A))


def test_a_measured_model_is_tuned_for_real(tmp_path: Path) -> None:
    """Without anything told: a time for each device, and the shortest wins."""
    need("wasm")
    model = nf.load(exported(tmp_path / "model"))
    times = nf.tune(model, rounds=1)
    assert "wasm" in times
    assert runtime.read_note(model.note) == min(times, key=times.__getitem__)
