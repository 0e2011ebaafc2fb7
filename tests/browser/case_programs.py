"""Cases (tests/cases.py) as Programs: all cases of one operation are one Graph."""

from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import numpy as np

import nearfield as nf
from cases import Case, cases_of
from k_interpreter import Number
from nearfield.compiler.build import Target, build
from nearfield.dtype import DTYPES
from nearfield.graph.graph import Graph
from nearfield.op import Op
from nearfield.program.codec import encode
from nearfield.tensor import Node, Tensor, apply, call, scalar
from nearfield.trace import trace

TARGETS = {
    "wasm": Target("wasm", frozenset({"relaxed-simd"}), 32),
    "wasm-simd": Target("wasm", frozenset(), 32),
    "webgpu": Target("webgpu", frozenset(), 8),
}
ONLY_ON_WASM = {"float64", "int64"}


@dataclass(frozen=True)
class Bundle:
    """The cases of one operation, for one target.

    program  the file, as in docs/spec/program.md
    inputs   the bytes of all inputs, one after the other
    results  where each case's result is: ("input", n) or ("output", n)
    """

    cases: list[Case]
    program: bytes
    inputs: bytes
    results: tuple[tuple[str, int], ...]

    def arrays(self, outputs: list[str]) -> list[Any]:
        """The results of the cases, from the outputs in Base64."""
        given = [x for case in self.cases for x in case.arrays if not isinstance(x, Number)]
        found = []
        for case, (kind, n) in zip(self.cases, self.results, strict=True):
            shape, dtype = case.infer()
            found.append(
                given[n] if kind == "input" else np.frombuffer(b64decode(outputs[n]), dtype.name).reshape(shape)
            )
        return found


def bundle_of(op: Op, target: str) -> Bundle:
    """All cases of an operation that the target has the element types for."""
    chosen = [case for case in cases_of(op) if target != "webgpu" or not case.dtypes & ONLY_ON_WASM]
    graph, inputs = graph_of(chosen)
    built = build(graph, TARGETS[target])
    return Bundle(chosen, encode(built.program), inputs, built.results)


def graph_of(cases: list[Case]) -> tuple[Graph, bytes]:
    """One Graph with an output for each case; a Number is a constant of it, other arrays are its inputs."""
    inputs, results, data = [], [], []
    with nf.use("reference"):  # which has every element type
        for case in cases:
            args = []
            for x in case.arrays:
                dtype = DTYPES[x.dtype.name]
                if isinstance(x, Number):
                    args.append(call("broadcast_to", scalar(x.item(), dtype), x.shape))
                else:
                    args.append(Tensor(Node(None, (), {}, x.shape, dtype)))
                    inputs.append(args[-1])
                    data.append(np.ascontiguousarray(x).tobytes())
            results.append(apply(case.op, *args, **case.attrs))
        graph, _ = trace([y.node for y in results], [x.node for x in inputs])
    return graph, b"".join(data)
