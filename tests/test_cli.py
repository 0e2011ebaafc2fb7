"""The command line: what each command prints and returns, also when something is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn
from nearfield.cli import main
from nearfield.deploy.measure import examples, measure

X = np.arange(6, dtype="float32").reshape(2, 3)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small exported classifier."""
    linear = nn.Linear(3, 2, generator=nf.random.Generator(0)).update({"weight": X.T, "bias": np.ones(2)})
    nf.export(
        lambda x: nn.softmax(linear(x)), tmp_path / "model", inputs={"x": X}, outputs=["p"], labels=["cat", "dog"]
    )
    return str(tmp_path / "model")


def test_info_names_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert f"nearfield  {nf.__version__}\n" in said
    assert "cache      off" in said
    for name, description in nf.devices().items():
        assert name == "reference" or f"{name}: {description}" in said


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"nearfield {nf.__version__}\n"


def test_doctor_computes_on_each_device(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    need("wasm")
    need("webgpu")
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said] == [["ok", n] for n in ("python", "cache", "webgpu", "wasm")]
    monkeypatch.setenv("NEARFIELD_CACHE", "/dev/null/none")
    assert main(["doctor"]) == 1
    assert "wrong  cache    /dev/null/none cannot be written" in capsys.readouterr().out


def test_run_prints_outputs_and_labels(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("wasm")
    np.save(tmp_path / "x.npy", X)
    assert main(["run", model, f"x={tmp_path / 'x.npy'}", "--device", "wasm", "--save", str(tmp_path / "out")]) == 0
    want = X @ X.T + 1
    want = np.exp(want - want.max(1, keepdims=True))
    want /= want.sum(1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "p.npy"), want, rtol=1e-5)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "p  float32[2, 2]"
    assert [line.split()[1] for line in said[-2:]] == ["dog", "cat"]


def test_run_makes_inputs_up(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    need("wasm")
    assert main(["run", model, "--device", "wasm"]) == 0
    assert capsys.readouterr().err.endswith("x: made up\n")


WRONG = [
    (["run", "nowhere"], "no folder 'nowhere'"),
    (["run", "MODEL", "x"], "'x' is no input; accepted are name=file.npy and name=number"),
    (["run", "MODEL", "x=many"], "'x=many' is no input: Expecting value"),
    (["run", "MODEL", "y=1"], "'y' is not an input; accepted are x"),
    (["run", "MODEL", "x=1.5"], "accepted is (2, 3)"),
    (["run", "MODEL", "--device", "abacus"], "there is no device 'abacus'"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[w[-1] for w, _ in WRONG])
def test_what_is_wrong_is_said_in_one_line(
    model: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need("wasm")
    with nf.use("wasm"):
        assert main([model if word == "MODEL" else word for word in words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("nearfield run: ")
    assert message in said
    assert len(said.splitlines()) == 1


def test_bench_prints_a_row_for_each_device(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("wasm")
    words = ["bench", model, "--device", "wasm", "--device", "abacus", "--rounds", "2"]
    with nf.use("wasm"):
        assert main([*words, "--json", str(tmp_path / "figures.json")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["device", "median", "ms", "spread", "first", "ms", "memory", "MB", "what"]
    assert said[1].split()[0] == "wasm"
    assert said[2].split()[:2] == ["abacus", "missing"]
    assert said[-1] == "fastest: wasm; chosen here: wasm"
    (row,) = json.loads((tmp_path / "figures.json").read_text())
    assert row["device"] == "wasm"
    assert row["median"] > 0
    assert main(["bench", model, "--device", "abacus"]) == 1


@pytest.mark.parametrize("name", ["wasm", "webgpu"])
def test_figures_of_a_measurement(model: str, name: str) -> None:
    """Times are positive, shares add up to 1 and name the Program's kernels, memory covers the weights."""
    need(name)
    loaded = nf.load(model)
    found = measure(loaded, name, rounds=3)
    assert found.device == name
    assert found.median > 0
    assert found.memory >= 32
    with nf.use(name):
        session, _ = loaded.prepared(examples(loaded))
    assert {kernel for kernel, _ in found.shares} <= {kernel.name for kernel in session.program.kernels}
    assert sum(share for _, share in found.shares) == pytest.approx(1)
    assert [s for _, s in found.shares] == sorted((s for _, s in found.shares), reverse=True)
    assert (name == "wasm") == found.told.startswith("measured")


def test_rounds_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "model", "--rounds", "0"])
    assert stopped.value.code == 2
    assert "'0'; accepted are 1 to 10000" in capsys.readouterr().err
