"""The house rules that a machine can check: who may import whom, how long things are, what `import nearfield` costs."""

import ast
import functools
import graphlib
import importlib
import inspect
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "nearfield"

# A room is a file or a folder directly in src/nearfield. It may import rooms of its own row and of the rows above it.
LAYERS = [
    {"errors", "dtype"},
    {"argument", "shape", "scalar", "index", "tree", "program"},
    {"op"},
    {"tensor", "graph", "state", "surroundings"},
    {"ops"},
    {"functional", "grad", "random", "show"},
    {"trace", "compiler"},
    {"device"},
    {"runtime", "holding", "steady", "replay", "jit"},
    {"nn", "optim", "data", "formats"},  # a module writes its parameters as safetensors; importers return modules
    {"train"},
    {"tasks", "deploy"},
    {"cli", "__init__", "__main__"},
]
LEVEL = {room: level for level, row in enumerate(LAYERS) for room in row}

# Rooms that may see less than their row says: a runner stays small, and layers know nothing of kernels.
ONLY = {"program": {"errors", "dtype"}, "device": {"errors", "dtype", "program"}}
NEVER = {
    "nn": {"compiler", "device"},
    "optim": {"compiler", "device"},
    "data": {"compiler", "device"},
    "compiler": {"trace"},
}

# Packages outside the standard library, and the files that may import them.
THIRD_PARTY = {
    "numpy": "*",  # but not in what `import nearfield` loads: test_import_is_light
    "wgpu": "device/wgpu*.py",
    "cffi": "device/wgpu_types.py",  # which wgpu stands on
    "wasmtime": "device/wasmtime*.py",
}
PYODIDE = {"js", "pyodide", "pyodide_js"}  # in device/browser.py and at most one more file

DRAWERS = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
P90_FUNCTION_LINES = 25
MAX_IMPORT_MS = 150

FILES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = [
    p for folder in ("src", "tests", "tools", "examples", "benchmarks") for p in sorted((ROOT / folder).rglob("*.py"))
]
WEB_FILES = [p for p in sorted((ROOT / "web").rglob("*.ts")) if "node_modules" not in p.parts]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
whole_package = pytest.mark.skipif(PACKAGE / "__init__.py" not in FILES, reason="there is no nearfield/__init__.py yet")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def dotted(path: Path) -> str:
    """src/nearfield/nn/linear.py -> nearfield.nn.linear; a package's __init__.py is the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in FILES}
ROOMS = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}


def room_of(name: str) -> str:
    """The room of a first-party name: nearfield.nn.linear -> nn, nearfield.Tensor -> __init__."""
    room = (*name.split("."), "")[1]
    return room if room in ROOMS else "__init__"


def called(node: ast.Call) -> str:
    """The last name of what is called: f() and a.f() -> f."""
    return getattr(node.func, "id", "") or getattr(node.func, "attr", "")


@functools.cache
def imports_of(path: Path, *, at_top: bool = False) -> frozenset[str]:
    """Dotted names of all that a file imports, wherever in it (or at its top): `from .a import b` is nearfield.a.b."""
    package = dotted(path).split(".")[: None if path.name == "__init__.py" else -1]
    found: set[str] = set()
    for node in tree_of(path).body if at_top else ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            found |= {".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names}
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            literal = isinstance(node.args[0], ast.Constant)
            assert literal or path.parent == PACKAGE, f"{path}:{node.lineno}: a computed import hides what is imported"
            name = str(node.args[0].value) if literal else ""
            found |= {".".join([*package, name[1:]]) if name.startswith(".") else name}
    return frozenset(found - {""})


def first_party(path: Path, *, at_top: bool = False) -> set[str]:
    return {name for name in imports_of(path, at_top=at_top) if name.split(".")[0] == "nearfield"}


@every_file
def test_imports_point_down(path: Path) -> None:
    """A room sees its own row of the table and the rows above it, and no more than its exceptions allow."""
    room = room_of(dotted(path))
    assert room in LEVEL, (
        f"{room} is in no layer: add it to LAYERS in {Path(__file__).name}, and say why it stands there"
    )
    seen = {room_of(name) for name in first_party(path)} - {room}
    unknown = seen - set(LEVEL)
    assert not unknown, f"imports {unknown}, which is in no layer: add it to LAYERS"
    allowed = ONLY.get(room, {r for r in LEVEL if LEVEL[r] <= LEVEL[room]} - NEVER.get(room, set()))
    assert seen <= allowed, f"{room} (layer {LEVEL[room]}) may not import {sorted(seen - allowed)}"


def module_file(name: str) -> Path | None:
    """The file that holds a first-party name: that of the longest prefix that is a module."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return MODULES.get(name)


def test_no_import_cycles() -> None:
    """No file needs itself by way of others before it is ready (the layers rule the imports inside functions, too)."""
    edges = {path: {module_file(name) for name in first_party(path, at_top=True)} - {path, None} for path in FILES}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(path.relative_to(PACKAGE).as_posix() for path in error.args[1]), pytrace=False)


@every_file
def test_third_party_imports_have_a_home(path: Path) -> None:
    """Drivers are imported where they are driven, and nothing else from outside the standard library is."""
    outside = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names) - {"nearfield"} - PYODIDE
    here = path.relative_to(PACKAGE).as_posix()
    wrong = {name for name in outside if not fnmatch(here, THIRD_PARTY.get(name, ""))}
    assert not wrong, f"{here} imports {sorted(wrong)}: see THIRD_PARTY for where that may be"


def test_pyodide_is_met_in_two_files() -> None:
    """What exists only in Pyodide is used by device/browser.py and at most one more file."""
    files = {p.relative_to(PACKAGE).as_posix() for p in FILES if {n.split(".")[0] for n in imports_of(p)} & PYODIDE}
    assert len(files - {"device/browser.py"}) <= 1, sorted(files)


@pytest.mark.parametrize("path", ALL_FILES + WEB_FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_file_is_about_one_thing(path: Path) -> None:
    """Files stay short and are named by what they hold."""
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines; at most {MAX_FILE_LINES}. Split it by what it is about"
    drawers = {word for part in path.relative_to(ROOT).parts for word in re.split(r"[_.]", part)} & DRAWERS
    assert not drawers, f"a file called {drawers} can hold anything: name it by what it holds"


def functions() -> Iterator[tuple[str, int]]:
    """Every function of the package with its length in lines, docstring left out."""
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if len(body) < len(node.body) else 0
                yield (
                    f"{path.relative_to(ROOT)}:{node.lineno} {node.name}",
                    node.end_lineno - node.lineno + 1 - docstring,
                )


def test_functions_are_short() -> None:
    """No function is longer than a screen, and nine of ten are much shorter."""
    lengths = dict(functions())
    long = {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES}
    assert not long, f"longer than {MAX_FUNCTION_LINES} lines: {long}"
    if len(lengths) > 1:
        p90 = statistics.quantiles(lengths.values(), n=10)[-1]
        assert p90 <= P90_FUNCTION_LINES, (
            f"nine of ten functions have at most {p90} lines; should be {P90_FUNCTION_LINES}"
        )


def constants_classes_functions(name: str) -> tuple[int, list[tuple[bool, int, str]]]:
    """The order of `__all__`, ruff's RUF022: constants, classes, functions; numbers in names by their value."""
    group = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return group, [
        (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name) if part
    ]


@every_file
def test_public_names_are_sorted(path: Path) -> None:
    """`__all__` is a literal list in order; `make format` sorts it."""
    for node in tree_of(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            if path == PACKAGE / "__init__.py":
                continue  # made from the tables of operations: adding a row touches one file
            names = ast.literal_eval(node.value)
            assert names == sorted(set(names), key=constants_classes_functions)


def public_modules() -> list[ModuleType]:
    """nearfield, and the modules that a user reaches through it (`nf.nn`, `nf.optim`)."""
    nf = importlib.import_module("nearfield")
    rooms = sorted(name for name in nf.__all__ if f"nearfield.{name}" in MODULES)
    return [nf] + [m for m in (importlib.import_module(f"nearfield.{name}") for name in rooms) if hasattr(m, "__all__")]


@whole_package
def test_public_surface_is_deliberate(golden: Callable[[str, str], None]) -> None:
    """Every public name is written down: a change of the interface is a visible diff. Rows of tables are their own."""
    found = [(m.__name__, name) for m in public_modules() for name in m.__all__ if not hasattr(getattr(m, name), "op")]
    names = [f"{module}.{name}" for module, name in found]
    golden("api.txt", "\n".join(names) + "\n")


@whole_package
def test_public_names_are_documented() -> None:
    """Every public function, class and module says what it is, and takes no **kwargs."""
    things = [(f"{m.__name__}.{name}", getattr(m, name)) for m in public_modules() for name in m.__all__]
    bare = [
        name for name, thing in things if (callable(thing) or inspect.ismodule(thing)) and not inspect.getdoc(thing)
    ]
    assert not bare, f"without a docstring: {bare}"
    plain = [(name, thing) for name, thing in things if inspect.isfunction(thing)]
    open_ended = [n for n, f in plain if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(f).parameters.values())]
    assert not open_ended, f"with **kwargs: {open_ended}"


def python(code: str) -> str:
    """What a fresh interpreter prints for `code`, with this tree's nearfield."""
    environment = os.environ | {
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "pycache"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, not at each import
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


@whole_package
def test_import_is_light() -> None:
    """`import nearfield` loads the standard library and nothing else: it is what a page waits for."""
    code = "import sys; before = set(sys.modules); import nearfield; print(*(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in python(code).split()}
    more = loaded - set(sys.stdlib_module_names) - {"nearfield"}
    assert not more, f"import nearfield loads {sorted(more)}: import it inside the function that needs it"


@whole_package
def test_import_is_quick() -> None:
    """`import nearfield` stays within its budget of processor time, best of five."""
    code = "import time; start = time.process_time(); import nearfield; print(1000 * (time.process_time() - start))"
    best = min(float(python(code)) for _ in range(5))
    assert best <= MAX_IMPORT_MS, f"{best:.0f} ms; at most {MAX_IMPORT_MS}"
