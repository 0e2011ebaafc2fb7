"""The JavaScript runner under Node.js, driven from Python: Programs and exported models that are made on the way."""

import base64
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearfield.program.codec import encode
from nearfield.program.program import Program

ROOT = Path(__file__).resolve().parent.parent
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # Node.js may be in .venv


def node() -> str | None:
    """Where Node.js is, if it is installed."""
    return shutil.which("node", path=PATH)


class NodeRunner:
    """One process, which answers each line with a line."""

    def __init__(self) -> None:
        command = [str(node()), ROOT / "tests" / "web" / "run_programs.mjs"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.features = frozenset[str](self._answer()["features"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def run(
        self,
        program: Program,
        inputs: Sequence[bytes],
        weights: dict[str, bytes],
        results: Sequence[tuple[str, int, int]],
        threads: int,
    ) -> tuple[list[bytes], int]:
        """What entry `main` leaves in the memories that `results` names (and their bytes); memory in use afterwards.

        results  ("input", n, bytes) or ("output", n, bytes)
        """
        answer = self._ask(
            file=_text(encode(program)),
            inputs=[_text(x) for x in inputs],
            weights={name: _text(x) for name, x in weights.items()},
            results=results,
            threads=threads,
            times=3,
        )
        return [base64.b64decode(x) for x in answer["found"]], answer["left"]

    def predict(self, folder: Path, inputs: dict[str, Any], threads: int) -> list[Any]:
        """The float32 outputs of an exported model."""
        given = {name: _text(np.ascontiguousarray(x).tobytes()) for name, x in inputs.items()}
        answer = self._ask(url=folder.resolve().as_uri() + "/", inputs=given, threads=threads)
        return [np.frombuffer(base64.b64decode(x), "float32") for x in answer["found"]]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)


@functools.cache
def runner() -> NodeRunner:
    """The one that this process uses."""
    return NodeRunner()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
