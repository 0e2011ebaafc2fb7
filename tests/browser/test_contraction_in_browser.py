"""Contractions in tiles, in the browser: its processor is asked there how it multiplies bytes."""

from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

import nearfield as nf
from browser.case_programs import TARGETS
from browser.harness import Site, watched_page
from nearfield import nn
from nearfield.compiler.build import build
from nearfield.compiler.wgsl_numbers import share_texts
from nearfield.graph.interpret import interpret
from nearfield.program.codec import encode
from nearfield.tensor import Tensor
from test_bytes import biases, bytes_scaled, convolved, filtered, scales
from test_contraction import graph_of, octets, whole
from test_numbers import ALIKE


def bytes_product(a: Tensor, b: Tensor) -> Tensor:
    return nf.astype(a, "int32") @ nf.astype(b, "int32")


def halves(*shape: int) -> Any:
    """Numbers in float16 whose sums are exact: a column of subnormal ones, and one of large ones."""
    found = whole(*shape)
    found[:, 0] *= 2.0**-24
    found[:, 1] *= 2.0**13
    return found.astype("float16")


JOBS: dict[str, tuple[Any, list[Any]]] = {
    "product": (lambda a, b, bias: nn.relu(a @ b + bias), [whole(61, 40), whole(40, 33), whole(33)]),
    "convolution": (lambda x, w: nn.conv2d(x, w, padding=1), [whole(1, 13, 13, 16), whole(3, 3, 16, 20)]),
    "long sum": (lambda a, b: a @ b, [whole(9, 8192), whole(8192, 12)]),
    "float16": (lambda a, b: a @ nf.astype(b, "float32"), [whole(20, 64), halves(64, 40)]),
    "int8": (bytes_product, [octets("int8", 27, 132), octets("int8", 132, 13)]),
    "uint8": (bytes_product, [octets("uint8", 40, 64), octets("int8", 64, 24)]),
    "int8 to int8": (bytes_scaled, [octets("int8", 40, 64), octets("int8", 64, 24), biases(24), scales(24)]),
    "int8 depthwise": (filtered(1), [octets("int8", 1, 9, 7, 40), octets("int8", 3, 3, 1, 40), biases(40), scales(40)]),
    "uint8 depthwise": (
        filtered(2),
        [octets("uint8", 1, 8, 8, 16), octets("int8", 3, 3, 1, 16), biases(16), scales(16)],
    ),
    "int8, 3 channels": (convolved, [octets("int8", 1, 14, 14, 3), octets("int8", 3, 3, 3, 32)]),
}


@pytest.mark.parametrize("target", ["wasm", "wasm-simd"])
def test_contractions_in_the_browser(target: str, browser: Browser, site: Site, tmp_path: Path) -> None:
    """Exactly what NumPy says, of small whole numbers and of all bytes."""
    site.folders["/contractions/"] = tmp_path
    with watched_page(browser) as page:
        page.goto(f"{site.url}/pages/cases.html")
        page.wait_for_function("'runProgram' in globalThis")
        for name, (make, arrays) in JOBS.items():
            graph = graph_of(make, arrays)
            (tmp_path / "job.nfp").write_bytes(encode(build(graph, TARGETS[target]).program))
            (tmp_path / "job.bin").write_bytes(b"".join(x.tobytes() for x in arrays))
            answer = page.evaluate("runProgram('wasm', '../contractions/job.nfp', '../contractions/job.bin')")
            (want,) = interpret(graph, arrays)
            got = np.frombuffer(b64decode(answer["outputs"][0]), want.dtype).reshape(want.shape)
            np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("name", ALIKE)
def test_shared_texts_in_the_browser(name: str, browser: Browser, site: Site, tmp_path: Path) -> None:
    """A page's compiler takes kernels that read their numbers: no barrier depends on one."""
    make, arrays = ALIKE[name]
    graph = graph_of(make, arrays)
    program = share_texts(build(graph, TARGETS["webgpu"]).program, 8)
    assert any(buffer.kind == "constant" for buffer in program.buffers)
    site.folders["/contractions/"] = tmp_path
    (tmp_path / "job.nfp").write_bytes(encode(program))
    (tmp_path / "job.bin").write_bytes(b"".join(x.tobytes() for x in arrays))
    with watched_page(browser) as page:
        page.goto(f"{site.url}/pages/cases.html")
        page.wait_for_function("'runProgram' in globalThis")
        answer = page.evaluate("runProgram('webgpu', '../contractions/job.nfp', '../contractions/job.bin')")
    for output, want in zip(answer["outputs"], interpret(graph, arrays), strict=True):
        got = np.frombuffer(b64decode(output), want.dtype).reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-5)
