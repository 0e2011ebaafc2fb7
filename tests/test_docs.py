"""Documents run: every Python block, its output, files that blocks are, and every command that a shell block names."""

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    path
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
    if path.is_file()
]

SLOW = {"README.md", "docs/guide/start.md"}  # they train

# Blocks marked ```python no-run, each with its reason: a block that does not run may be wrong, so there are few.
NOT_RUN: dict[str, str] = {}

BLOCK = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, its text, and the line where the text begins."""

    language: str
    words: tuple[str, ...]
    code: str
    line: int


@functools.cache
def blocks(path: Path) -> tuple[Block, ...]:
    text = path.read_text()
    return tuple(
        Block(
            *((m["info"].split() or [""])[0], tuple(m["info"].split()[1:])),
            m["code"],
            text[: m.start("code")].count("\n") + 1,
        )
        for m in BLOCK.finditer(text)
    )


def documents_with(*languages: str) -> pytest.MarkDecorator:
    found = [path for path in DOCUMENTS if any(block.language in languages for block in blocks(path))]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    slow = "python" in languages
    return pytest.mark.parametrize(
        "path",
        [
            pytest.param(path, id=n, marks=[pytest.mark.slow] * (slow and n in SLOW))
            for path, n in zip(found, names, strict=True)
        ],
    )


def run(path: Path, block: Block, names: dict[str, object]) -> str:
    """What the block prints. Its lines keep their numbers, so that a traceback points into the document."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), names)
    return printed.getvalue()


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the device that a document chose, the operations that it defined and the numbers that it drew."""
    from nearfield import op, random, runtime, tensor

    for table in (op.REGISTRY, tensor.FUNCTIONS):
        for name, value in table.items():
            monkeypatch.setitem(table, name, value)
    monkeypatch.setattr(runtime._state, "device", runtime._state.device)
    known = set(op.REGISTRY), set(tensor.FUNCTIONS)
    yield
    random.seed(0)
    for table, before in zip((op.REGISTRY, tensor.FUNCTIONS), known, strict=True):
        for name in table.keys() - before:
            del table[name]


def write_files(path: Path, folder: Path) -> None:
    """A block with the word file=NAME is that file, below the document's scratch folder."""
    for block in blocks(path):
        for word in block.words:
            if word.startswith("file="):
                file = folder / word.removeprefix("file=")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.code)


@documents_with("python")
@pytest.mark.usefixtures("_as_before")
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a document run in order and share their names; a ```text block right after one is what it prints.

    Each document has a scratch folder of its own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_files(path, tmp_path)
    names: dict[str, object] = {"__name__": "document"}
    everything = blocks(path)
    for block, following in zip(everything, [*everything[1:], None], strict=True):
        if block.language != "python":
            continue
        if "no-run" in block.words:
            assert path.relative_to(ROOT).as_posix() in NOT_RUN, (
                f"{path}:{block.line}: no-run needs a reason in NOT_RUN"
            )
            continue
        printed = run(path, block, names)
        ends = block.line + block.code.count("\n") + 1
        if following and following.language == "text" and following.line - 1 - ends <= 1:
            assert printed.rstrip() == following.code.rstrip(), f"{path}:{block.line} prints something else"
    names.clear()


@documents_with("bash", "sh", "console")
def test_commands_exist(path: Path) -> None:
    """Every `make target` in a shell block is one of the Makefile's."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks(path):
        if block.language in {"bash", "sh", "console"}:
            named = set(re.findall(r"^\s*\$?\s*make ([a-z]+)", block.code, re.MULTILINE))
            assert named <= targets, f"{path}:{block.line}: no such target: {named - targets}"


def test_links_lead_somewhere() -> None:
    """Relative links between documents and to files of the repository."""
    found = [(p, link) for p in DOCUMENTS for link in re.findall(r"\]\(([^)#\s]+)", BLOCK.sub("", p.read_text()))]
    broken = [
        f"{p.relative_to(ROOT)}: {link}" for p, link in found if ":" not in link and not (p.parent / link).exists()
    ]
    assert not broken, "\n".join(broken)
