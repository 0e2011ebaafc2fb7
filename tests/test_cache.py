"""Files kept between processes: found again, replaced when damaged, bounded, private; and of no effect on results."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import runtime
from nearfield.compiler import build as build_module
from nearfield.compiler import cached
from nearfield.compiler.build import Target
from nearfield.compiler.choice import Choices
from nearfield.op import REGISTRY
from nearfield.program.cache import Cache, cache
from nearfield.trace import trace

X = np.arange(6, dtype="float32").reshape(2, 3)
SCRIPT = """
import numpy as np, nearfield as nf
from nearfield.compiler import build
built = []
real = build.build
build.build = lambda *args: built.append(1) or real(*args)
nf.use("wasm")
print(nf.exp(nf.asarray(np.ones(3, "float32")) * 2).tolist(), len(built))
"""

STEP = """
import sys
import nearfield as nf
from nearfield import nn, optim
model, optimizer = nn.Sequential(nn.Linear(3, 4), nn.relu, nn.Linear(4, 2)), optim.Adam(1e-3)
both = nn.value_and_grad(model, lambda x: nf.mean(model(x)))
class Seen(nn.Module):
    def __call__(self, x):
        for n, name in enumerate("abcdef"):
            setattr(self, name, nf.sum(x) + n)
seen = Seen()
@nf.jit
def step(x):
    loss, grads = both(x)
    optimizer.update(model, grads)
    seen(x)
    return loss
nf.use("wasm")
x = nf.ones((2, 3))
step(x).item(), step(x).item()
print("nearfield.compiler.build" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and builds as users have them."""
    monkeypatch.setenv("NEARFIELD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEARFIELD_DEBUG", raising=False)
    return tmp_path / "cache"


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"*.{kind}"))


def some_graph() -> cached.Graph:
    x = nf.asarray(X)
    return trace([(nf.exp(x) + 1.0).node])[0]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows with each build."""
    calls: list[object] = []
    real = build_module.build
    monkeypatch.setattr(build_module, "build", lambda *args: calls.append(args) or real(*args))
    return calls


def test_a_program_is_built_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time it comes from its file, and is the same."""
    calls = counted(monkeypatch)
    first, second = (cached.cached_build(some_graph(), Target(name)) for name in ("wasm", "wasm"))
    assert first == second
    assert len(calls) == len(files(folder, "program")) == 1


TARGETS: list[Callable[[], object]] = [
    lambda: cached.cached_build(some_graph(), Target("webgpu")),
    lambda: cached.cached_build(some_graph(), Target("wasm", frozenset({"relaxed-simd"}))),
    lambda: cached.cached_build(some_graph(), Target("wasm", bindings=4)),
    lambda: cached.cached_build(some_graph(), Target("wasm", code_generator="cranelift")),
    lambda: cached.cached_build(some_graph(), Target("wasm", choices=Choices({"tile 1": "2"}))),
    lambda: cached.cached_build(some_graph(), Target("wasm"), frozenset({0})),
    lambda: cached.cached_build(some_graph(), Target("wasm"), weights={0: "w"}),
    lambda: cached.cached_build(some_graph(), Target("wasm"), names={"input": ["a"], "output": ["b"]}),
    lambda: cached.cached_build(some_graph(), Target("wasm"), entry="predict"),
    lambda: cached.cached_build(trace([(nf.exp(nf.asarray(X)) + 2.0).node])[0], Target("wasm")),
    lambda: cached.cached_build(trace([(nf.exp(nf.asarray(X[:1])) + 1.0).node])[0], Target("wasm")),
]


def test_all_that_a_program_depends_on_is_in_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    cached.cached_build(some_graph(), Target("wasm"))
    for make in TARGETS:
        make()
    assert len(calls) == len(files(folder, "program")) == 1 + len(TARGETS)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "sealed nonsense"])
def test_a_damaged_file_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    calls = counted(monkeypatch)
    want = cached.cached_build(some_graph(), Target("wasm"))
    (path,) = files(folder, "program")
    data = path.read_bytes()
    if damage == "sealed nonsense":  # as a version that wrote otherwise would
        key = cached.program_key(some_graph(), Target("wasm"), ([], [], None, "main", []))
        cache().put("program", key, b"\x00\x00\x00\x00nonsense")
    else:
        path.write_bytes({"cut": data[:-5], "changed": data[:-5] + b"abcde", "empty": b""}[damage])
    assert cached.cached_build(some_graph(), Target("wasm")) == want
    assert len(calls) == 2
    assert path.read_bytes() == data


def test_operations_of_others_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their name does not say what they do."""
    calls = counted(monkeypatch)
    monkeypatch.setitem(REGISTRY, "exp", REGISTRY["log"])
    for _ in range(2):
        cached.cached_build(some_graph(), Target("wasm"))
    assert len(calls) == 2
    assert not folder.exists()


def test_machine_code_is_kept(folder: Path) -> None:
    """A second device of the same kind finds it; damaged code is compiled again."""
    need("wasm")
    from nearfield.device.wasmtime import WasmDevice

    program = cached.cached_build(some_graph(), Target("wasm")).program
    for n in range(3):
        device = WasmDevice()
        memory = device.alloc(24)
        device.write(memory, X.tobytes())
        made = device.load(program).run("main", [memory])[0]
        np.testing.assert_allclose(np.frombuffer(device.read(made, 24), "float32"), np.exp(X).ravel() + 1, rtol=1e-6)
        (path,) = files(folder, "code")
        if n == 1:  # what another processor's would be: whole, and not fit
            path.write_bytes(sha256(b"not machine code").digest() + b"not machine code")
        device.close()
    assert path.stat().st_size > 1000


def test_the_folder_is_private(folder: Path) -> None:
    Cache(folder).put("a", "key", b"data")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in folder.iterdir())
    assert [p.suffix for p in folder.iterdir()] == [".a"]


def test_a_folder_that_others_may_write_is_not_used(folder: Path) -> None:
    Cache(folder).put("a", "key", b"data")
    folder.chmod(0o777)
    other = Cache(folder)
    assert other.get("a", "key") is None
    other.put("a", "second", b"data")
    assert len(list(folder.iterdir())) == 1


def test_sizes_are_bounded(folder: Path) -> None:
    """What was used least recently goes first."""
    small = Cache(folder, most=10_000)
    for n in range(8):
        small.put("a", f"key {n}", bytes(1000))
        os.utime(small._path("a", f"key {n}"), (n, n))
    assert small.get("a", "key 0") is not None  # used now
    for n in range(8, 12):
        small._puts = 0
        small.put("a", f"key {n}", bytes(1000))
    left = [n for n in range(12) if small.get("a", f"key {n}") is not None]
    assert {0, 8, 9, 10, 11} <= set(left)
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 10_000
    small.put("a", "too large", bytes(20_000))
    assert small.get("a", "too large") is None


def test_where_nothing_can_be_written_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    for setting in ("off", str(tmp_path / "file" / "below")):
        monkeypatch.setenv("NEARFIELD_CACHE", setting)
        cache().put("a", "key", b"data")
        assert cache().get("a", "key") is None
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_second_process_does_not_compile(folder: Path) -> None:
    """Neither K nor machine code; the numbers are the same."""
    need("wasm")
    source = str(Path(nf.__file__).parent.parent)
    environment = {**os.environ, "NEARFIELD_CACHE": str(folder), "PYTHONPATH": source}
    environment.pop("NEARFIELD_DEBUG", None)
    said = [
        subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    first, second = (s.stdout.rsplit(None, 1) for s in said)
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("1", "0")
    assert len(files(folder, "program")) == len(files(folder, "code")) == 1


def test_a_step_of_training_is_the_same_in_each_process(folder: Path) -> None:
    """However texts are hashed, state made in a call keeps its order. Where all is found, no compiler is imported."""
    need("wasm")
    source = str(Path(nf.__file__).parent.parent)
    built = []
    for seed in ("1", "2"):
        environment = {**os.environ, "NEARFIELD_CACHE": str(folder), "PYTHONPATH": source, "PYTHONHASHSEED": seed}
        environment.pop("NEARFIELD_DEBUG", None)
        said = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True)
        built.append(said.stdout.strip())
    assert built == ["True", "False"]


def test_programs_found_on_disk_run(folder: Path) -> None:
    """Also through evaluation, where the Program of the process is forgotten."""
    need("wasm")
    with nf.use("wasm"):
        for _ in range(2):
            runtime.forget_programs()
            np.testing.assert_array_equal((nf.asarray(X) * 3.0).numpy(), X * 3)
    assert len(files(folder, "program")) == 1


class Remembered:
    """A mirror that holds what it was told, the file used last at the end."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        self.files.pop(name, None)
        self.files[name] = data

    def use(self, name: str) -> None:
        self.files[name] = self.files.pop(name)

    def remove(self, name: str) -> None:
        del self.files[name]


def test_a_mirror_has_what_the_folder_has(folder: Path) -> None:
    """After writing, reading, finding damage and making room, bytes and order of use."""
    small, mirror = Cache(None), Remembered()
    small.settle(folder, mirror, 5_000)
    for n in range(4):
        small.put("a", f"key {n}", bytes([n]) * 1000)
        os.utime(small._path("a", f"key {n}"), (n, n))
    assert small.get("a", "key 0") == bytes(1000)
    assert list(mirror.files)[-1] == small._path("a", "key 0").name
    small._path("a", "key 1").write_bytes(b"damaged")
    assert small.get("a", "key 1") is None
    small._puts = 0
    for n in range(4, 7):
        small._puts = 0
        small.put("a", f"key {n}", bytes([n]) * 1000)
    assert mirror.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert small._path("a", "key 0").name in mirror.files
    assert small._path("a", "key 2").name not in mirror.files
