"""docs/learn/nearfield_in_300_lines.py: it has 300 lines, runs on nothing but Python, and its two targets agree."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "docs" / "learn" / "nearfield_in_300_lines.py"
EMPTY = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def printed(*options: str, argument: str) -> str:
    """What the file prints; it says the loss every hundred steps."""
    command = [sys.executable, *options, str(FILE), argument]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def lines_of_code(text: str) -> int:
    """The lines that hold code: no comments, no docstrings."""
    things = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = [n.body[0] for n in things if ast.get_docstring(n)]
    prose = {line for d in docstrings for line in range(d.lineno, d.end_lineno + 1)}
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in EMPTY]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - prose)


def test_it_has_300_lines() -> None:
    assert lines_of_code(FILE.read_text()) <= 300


@pytest.mark.slow
def test_it_learns_alike_on_both_targets() -> None:
    """Isolated (-S), there is no wasmtime, and nothing else that is not Python's own."""
    bare, compiled = printed("-I", "-S", argument="python"), printed(argument="wasm")
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", compiled)]
    assert losses[-1] < 0.1 * losses[0]
    assert compiled == bare
    assert "601 steps, 1 Program built" in compiled
