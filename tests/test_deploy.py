"""Exported models: what is written, that it comes back whole and computes the same, that damaged files are refused."""

import gc
import json
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn
from nearfield.deploy import Server, Spec, copy_page
from nearfield.device import open_device
from nearfield.errors import DeviceError, DTypeError, FormatError, ShapeError, TraceError
from nearfield.formats.safetensors import load_tensors
from nearfield.program.codec import decode

X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
FILES = {"model.json", "weights.safetensors", "webgpu.nfp", "wasm.nfp", "wasm-simd.nfp", "wasm-native.nfp"}


@pytest.fixture(params=["wasm", "webgpu"])
def on(request: pytest.FixtureRequest) -> Iterator[str]:
    """A device that runs Programs."""
    need(request.param)
    with nf.use(request.param):
        yield request.param


def network() -> nn.Module:
    """A little of everything: convolution, statistics, what training alone does, a matrix product."""
    g = nf.random.Generator(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, generator=g), nn.BatchNorm(8), nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(32, 5, generator=g), nn.softmax,
    )  # fmt: skip
    return net.eval()


def linear(n: int = 3) -> nn.Linear:
    return nn.Linear(n, n, generator=nf.random.Generator(2))


def test_a_module_comes_back_and_computes_the_same(on: str, tmp_path: Path) -> None:
    """Python runs what the page runs."""
    net = network()
    folder = nf.export(net, tmp_path / "site" / "model", inputs={"image": X}, outputs=["scores"], labels="abcde")
    assert {p.name for p in folder.iterdir()} == FILES
    model = nf.load(folder)
    want = net(nf.asarray(X)).numpy()
    assert np.allclose(model.run({"image": X})["scores"], want, atol=1e-6)
    assert np.allclose(model(nf.asarray(X)).numpy(), want, atol=1e-6)
    assert model.labels == tuple("abcde")
    assert model.inputs[0].shape == X.shape
    assert [p.name for p in tmp_path.joinpath("site").iterdir()] == ["model"]


def test_every_program_gives_the_same(tmp_path: Path) -> None:
    """The one for old browsers, too."""
    need("wasm")
    net = network()
    want = net(nf.asarray(X)).numpy()
    for keep in ("wasm.nfp", "wasm-simd.nfp", "wasm-native.nfp"):
        folder = nf.export(net, tmp_path / keep, inputs={"image": X}, targets=("wasm",))
        about = json.loads((folder / "model.json").read_text())
        about["programs"] = [row for row in about["programs"] if row["file"] == keep]
        (folder / "model.json").write_text(json.dumps(about))
        with nf.use("wasm"):
            assert np.allclose(nf.load(folder).run({"image": X})["output"], want, atol=1e-6)


def test_a_device_takes_the_program_for_its_code_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one; pages, and whoever knows no code generator, take the first that fits."""
    need("wasm")
    folder = nf.export(network(), tmp_path / "model", inputs={"image": X}, targets=("wasm",))
    modules = {name: decode((folder / name).read_bytes()).module for name in FILES if name.startswith("wasm")}
    assert len(set(modules.values())) == 3
    device = open_device("wasm")
    with nf.use("wasm"):
        for generator, file in (("cranelift", "wasm-native.nfp"), ("", "wasm.nfp"), ("other", "wasm.nfp")):
            monkeypatch.setattr(device, "code_generator", generator)
            session, _ = nf.load(folder).prepared([X])
            assert session.program.module == modules[file]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "bool"])
def test_arrays_may_change_after_the_call(on: str, tmp_path: Path, dtype: str) -> None:
    """They are not copied before they go to the device, but there they stay; whatever their order in memory."""
    first, other = (np.random.default_rng(n).integers(0, 2, (6, 4)).astype(dtype) for n in (1, 2))
    model = nf.load(nf.export(lambda x: nf.permute_dims(x, (1, 0)), tmp_path / "m", inputs={"x": first}))
    changing = first.copy()
    results = [model(changing)]
    changing[:] = other
    results += [model(x) for x in (changing, np.asfortranarray(first), other.T.copy().T, first[::-1])]
    for y, want in zip(results, (first, other, first, other, first[::-1]), strict=True):
        np.testing.assert_array_equal(y.numpy(), want.T)
    assert model(first.astype(first.dtype.newbyteorder(">"))).numpy().tolist() == first.T.tolist()


def test_half_precision_halves_the_weights(on: str, tmp_path: Path) -> None:
    """In the file and in the device's memory, and the answers stay close."""
    net = nn.Sequential(
        nn.Linear(64, 256, generator=nf.random.Generator(1)),
        nf.tanh,
        nn.Linear(256, 64, generator=nf.random.Generator(2)),
    )
    x = np.random.default_rng(1).normal(size=(4, 64)).astype("float32")
    sizes, held, results = [], [], []
    for dtype in (None, "float16"):
        folder = nf.export(net, tmp_path / str(dtype), inputs={"x": x}, dtype=dtype)
        sizes.append((folder / "weights.safetensors").stat().st_size)
        model = nf.load(folder)
        gc.collect()
        before = nf.memory_stats().bytes
        results.append(model.run({"x": x})["output"])
        held.append(nf.memory_stats().bytes - before)
        del model
        gc.collect()
        assert nf.memory_stats().bytes <= before
    assert sizes[1] < 0.55 * sizes[0]
    assert held[1] < held[0] - 60_000
    assert np.abs(results[0] - results[1]).max() < 5e-3
    assert {t.dtype.name for t in load_tensors(folder / "weights.safetensors").values()} == {"float16"}


def test_models_hold_their_weights_once(on: str, tmp_path: Path) -> None:
    """Not also as they were in the file, and in float16 half as much; sizes that fill no vector."""

    class Net(nn.Module):
        def __init__(self) -> None:
            g = nf.random.Generator(0)
            self.convs = [nn.Conv2d(a, b, 3, generator=g) for a, b in ((3, 30), (30, 150), (150, 70))]
            self.layers = [nn.Linear(a, b, generator=g) for a, b in ((630, 333), (333, 501), (501, 203))]

        def __call__(self, x: nf.Tensor) -> nf.Tensor:
            for conv in self.convs:
                x = nn.relu(conv(x))
            x = nf.reshape(x, (1, -1))
            for layer in self.layers:
                x = nn.relu(layer(x))
            return x

    net, x, held = Net(), np.ones((1, 9, 9, 3), "float32"), {}
    floor = 4 * sum(t.size for t in net.state_tensors().values())
    for dtype in ("float32", "float16"):
        folder = nf.export(net, tmp_path / dtype, inputs={"x": x}, dtype=None if dtype == "float32" else dtype)
        model = nf.load(folder)
        gc.collect()
        before = nf.memory_stats().bytes
        model.run({"x": x})
        gc.collect()
        arena = next(p.arena for row, p in model._programs.items() if row.target == on)  # what passes, not what stays
        held[dtype] = nf.memory_stats().bytes - before - arena
        del model
    assert floor < held["float32"] < 1.1 * floor
    assert 0.5 * floor < held["float16"] < 0.55 * floor


def test_functions_are_exported_with_what_they_refer_to(on: str, tmp_path: Path) -> None:
    """Modules by name, other Tensors as constants; several outputs; jit or not."""
    layer, shift = linear(), nf.asarray([1.0, 2.0, 3.0])
    shift.numpy()

    def both(a: nf.Tensor, b: nf.Tensor) -> dict[str, nf.Tensor]:
        y = layer(a) + shift
        return {"sum": y + b, "product": y * b}

    a, b = X[:, 0, 0], X[:, 1, 1]
    for n, function in enumerate((both, nf.jit(both))):
        folder = nf.export(function, tmp_path / str(n), inputs={"a": a, "b": Spec((2, 3))})
        assert set(load_tensors(folder / "weights.safetensors")) == {"weight", "bias", "constant0"}
        found = nf.load(folder).run({"b": b, "a": a})
        assert list(found) == ["sum", "product"]
        y = a @ layer.weight.numpy() + layer.bias.numpy() + [1, 2, 3]
        assert np.allclose(found["sum"], y + b, atol=1e-6)
        assert np.allclose(found["product"], y * b, atol=1e-6)


def test_the_model_is_as_it_was(tmp_path: Path) -> None:
    """Its Tensors, its mode, and nothing pending."""
    need("wasm")
    net = network().train()
    before = net.state_tensors()
    nf.export(net, tmp_path / "m", inputs={"image": X}, targets=("wasm",))
    after = net.state_tensors()
    assert all(after[name] is t for name, t in before.items())
    assert all(part.training for part in net.modules().values())
    layer = linear()
    nf.export(layer, tmp_path / "l", inputs={"x": Spec((1, 3))}, targets=("wasm",))
    assert "training" not in vars(layer)


def test_only_what_is_read_is_stored_and_shared_tensors_once(tmp_path: Path) -> None:
    """Weights that the call does not reach stay out."""
    need("wasm")

    class Tied(nn.Module):
        def __init__(self) -> None:
            self.first, self.second, self.unused = linear(), linear(), linear()
            self.second.weight = self.first.weight

        def __call__(self, x: nf.Tensor) -> nf.Tensor:
            return self.second(self.first(x))

    folder = nf.export(Tied(), tmp_path / "m", inputs={"x": Spec((1, 3))}, targets=("wasm",))
    assert set(load_tensors(folder / "weights.safetensors")) == {"first.weight", "first.bias", "second.bias"}


def test_names_may_be_the_same_as_weights(on: str, tmp_path: Path) -> None:
    """Inputs and outputs have their names from model.json."""
    folder = nf.export(linear(), tmp_path / "m", inputs={"weight": Spec((1, 3))}, outputs=["bias"])
    assert list(nf.load(folder).run({"weight": X[0, 0, :1]})) == ["bias"]


def test_programs_bind_what_every_device_has(tmp_path: Path) -> None:
    """At most eight buffers a kernel, whatever this machine could do."""
    inputs = {f"x{n}": Spec((4,)) for n in range(20)}
    folder = nf.export(lambda *xs: sum(xs[1:], xs[0]), tmp_path / "m", inputs=inputs)
    program = decode((folder / "webgpu.nfp").read_bytes())
    assert max(kernel.bindings for kernel in program.kernels) <= 8
    assert program.features == ()


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    """Shapes, kinds, names and numbers."""
    need("wasm")
    with nf.use("wasm"):
        model = nf.load(nf.export(linear(), tmp_path / "m", inputs={"x": Spec((2, 3))}))
        assert model.run({"x": np.ones((2, 3), "int32")})["output"].dtype == "float32"
        with pytest.raises(ShapeError, match=r"input 'x' has shape \(3, 2\); accepted is \(2, 3\)"):
            model(np.ones((3, 2), "float32"))
        with pytest.raises(ShapeError, match="2 inputs were given; accepted are 1: x float32"):
            model(X, X)
        with pytest.raises(TypeError, match="inputs is of type ndarray; accepted is a dict of inputs by name"):
            model.run(np.ones((2, 3), "float32"))  # type: ignore[arg-type]
        with pytest.raises(KeyError, match="'y' is not an input; accepted are x"):
            model.run({"x": X, "y": X})
        counting = nf.load(nf.export(lambda n: n + 1, tmp_path / "n", inputs={"n": Spec((2,), "int32")}))
        with pytest.raises(DTypeError, match="has dtype float32; accepted is int32"):
            counting(np.ones(2, "float32"))
    with nf.use("reference"), pytest.raises(DeviceError, match="no Program for device reference"):
        model(np.ones((2, 3), "float32"))


class Counter(nn.Module):
    """What changes when it is called."""

    def __init__(self) -> None:
        self.count = nf.asarray([0.0])

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        self.count = self.count + 1
        return x + self.count


REFUSED: dict[str, tuple[type[Exception], Callable[[Path], Any]]] = {
    "targets is ('metal',); accepted are": (
        DTypeError,
        lambda p: nf.export(linear(), p, inputs={"x": Spec((1, 3))}, targets=("metal",)),
    ),
    "changes its 'count'": (TraceError, lambda p: nf.export(Counter(), p, inputs={"x": Spec((1,))})),
    "the model returns a float": (DTypeError, lambda p: nf.export(lambda x: 1.0, p, inputs={"x": Spec((1,))})),
    "accepted are 1 names": (
        ShapeError,
        lambda p: nf.export(linear(), p, inputs={"x": Spec((1, 3))}, outputs=["a", "b"]),
    ),
    "is the same as an input": (ShapeError, lambda p: nf.export(lambda x: x, p, inputs={"x": Spec((1,))})),
}


@pytest.mark.parametrize(("words", "call"), REFUSED.items())
def test_what_cannot_be_exported_leaves_nothing_behind(words: str, call: Any, tmp_path: Path) -> None:
    """The error says why."""
    kind, export = call
    with pytest.raises(kind, match=words.replace("(", r"\(").replace(")", r"\)")):
        export(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


# -- folders -----------------------------------------------------------------------------------------------------------


def small(path: Path, n: int = 3) -> Path:
    return nf.export(linear(n), path, inputs={"x": Spec((1, n))}, targets=("wasm",))


def test_an_older_export_is_replaced(tmp_path: Path) -> None:
    """With its files, even those that the new one lacks."""
    nf.export(linear(), tmp_path / "m", inputs={"x": Spec((1, 3))})
    small(tmp_path / "m", 4)
    assert {p.name for p in (tmp_path / "m").iterdir()} == FILES - {"webgpu.nfp"}
    assert nf.load(tmp_path / "m").inputs[0].shape == (1, 4)
    (tmp_path / "empty").mkdir()
    small(tmp_path / "empty")


def test_nothing_of_the_user_is_lost(tmp_path: Path) -> None:
    """Folders with anything else in them, files and links are refused."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    link = tmp_path / "link"
    link.symlink_to(mine)
    for path, words in ((mine, "'thesis.txt'"), (mine / "thesis.txt", "no folder"), (link, "no folder")):
        with pytest.raises(FormatError, match=words):
            small(path)
    (small(tmp_path / "m") / "notes.txt").write_text("mine")
    with pytest.raises(FormatError, match=r"'notes\.txt'"):
        small(tmp_path / "m")
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert {p.name for p in tmp_path.iterdir()} == {"mine", "link", "m"}


def test_a_failed_export_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older one is there, whole, and no other file."""
    folder = small(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(sys.modules["nearfield.deploy.export"], "save_tensors", full)
    with pytest.raises(OSError, match="no space"):
        small(tmp_path / "m", 4)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


# -- damaged files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_damage_is_noticed(name: str, tmp_path: Path) -> None:
    """Missing, cut short, changed: FormatError, and nothing else; values of weights alone may be anything."""
    folder = nf.export(linear(), tmp_path / "m", inputs={"x": Spec((1, 3))})
    whole = (folder / name).read_bytes()
    dice = random.Random(name)
    (folder / name).unlink()
    with pytest.raises(FormatError):
        nf.load(folder)
    for n in range(150):
        damaged = bytearray(whole[: dice.randrange(len(whole))] if n % 3 == 0 else whole)
        for _ in range(dice.randrange(1, 4) if n % 3 else 0):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        (folder / name).write_bytes(damaged)
        try:
            nf.load(folder)
        except FormatError:
            continue
        assert len(damaged) == len(whole), "a file that is cut short must be noticed"


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "format": lambda m: m.update(format="other"),
    "version is 2": lambda m: m.update(version=2),
    "programs": lambda m: m.update(programs=[]),
    "relative name": lambda m: m.update(weights="../weights.safetensors"),
    "accepted is a folder": lambda m: m.update(weights="lacking.safetensors"),
    "at most 16 sizes": lambda m: m["inputs"][0].update(shape=[1, -3]),
    "the inputs are": lambda m: m["inputs"][0].update(shape=[3, 1]),
    "each name once": lambda m: m.update(outputs=m["outputs"] * 2),
    "one of bool": lambda m: m["inputs"][0].update(dtype="complex64"),
    "model.json says webgpu": lambda m: m["programs"][1].update(target="webgpu"),
}


@pytest.mark.parametrize("words", WRONG)
def test_model_json_is_checked(words: str, tmp_path: Path) -> None:
    """Each wrong entry is named."""
    folder = nf.export(linear(), tmp_path / "m", inputs={"x": Spec((1, 3))})
    about = json.loads((folder / "model.json").read_text())
    WRONG[words](about)
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(FormatError, match=words):
        nf.load(folder)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """Though the file itself is whole."""
    one, other = small(tmp_path / "one"), small(tmp_path / "other", 4)
    (one / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(FormatError, match=r"the weight 'weight' is .*\(3, 3\)"):
        nf.load(one)


def test_no_folder_is_said_plainly(tmp_path: Path) -> None:
    """It is no damage, but a wrong path."""
    with pytest.raises(FileNotFoundError, match="load: no folder"):
        nf.load(tmp_path / "nowhere")


def test_it_shows_itself(tmp_path: Path) -> None:
    """A table."""
    folder = nf.export(linear(), tmp_path / "m", inputs={"x": Spec((2, 3))}, outputs=["y"])
    assert repr(nf.load(folder)).splitlines()[1:] == [
        "┌────────┬──────┬───────┬────────────┐",
        "│        │ name │ shape │ dtype      │",
        "├────────┼──────┼───────┼────────────┤",
        "│ input  │ x    │ 2 × 3 │ float32    │",
        "│ output │ y    │ 2 × 3 │ float32    │",
        "├────────┴──────┴───────┴────────────┤",
        "│ 12 weights, 48 bytes; webgpu, wasm │",
        "└────────────────────────────────────┘",
    ]


# -- pages -------------------------------------------------------------------------------------------------------------


def test_a_page_is_served_isolated_and_alone(tmp_path: Path) -> None:
    """The runner lies beside the page's files; nothing outside the folder is served."""
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<title>Page</title>")
    (tmp_path / "secret.txt").write_text("secret")
    site = copy_page(tmp_path / "page", tmp_path / "site")
    with Server(site) as server:
        with urllib.request.urlopen(server.url) as answer:
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert b"Page" in answer.read()
        with urllib.request.urlopen(server.url + "nearfield.js") as answer:
            assert answer.headers["Content-Type"] == "text/javascript"
        for path in ("../secret.txt", "%2e%2e/secret.txt", "lacking.html"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(server.url + path)
