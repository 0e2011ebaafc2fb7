"""The benchmarks' page runs what was exported, and tells what it computed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks import exported, weights
from benchmarks.pages import PagePeer, Site, folders
from benchmarks.workloads import WORKLOADS
from playwright.sync_api import Browser

import nearfield as nf


@pytest.fixture
def peer(browser: Browser, tmp_path: Path) -> Iterator[PagePeer]:
    exported.write_list(
        {name: exported.export_workload(name, tmp_path) for name in ("matmul_256", "train_mlp")}, tmp_path
    )
    with Site(folders() | {"/exports/": tmp_path}) as site:
        page = PagePeer(browser, site, "nearfield", "wasm", 2, 2)
        yield page
        page.close()


def test_a_page_computes_and_is_timed(peer: PagePeer) -> None:
    found = peer.prepare("matmul_256")["output"]
    product = np.matmul(*WORKLOADS["matmul_256"].make().inputs.values())
    assert found["n"] == product.size
    assert found["rms"] == pytest.approx(weights.summary(product)["rms"], rel=1e-6)
    assert len(peer.run(1, 3, 5, left=True)) >= 3
    assert len(peer.run(1, 3, 5, left=False)) >= 3
    assert peer.memory()["peak"] >= 3 * product.nbytes


def test_a_page_trains(peer: PagePeer) -> None:
    job = WORKLOADS["train_mlp"].make()
    with nf.use("wasm"):
        first = nf.jit(job.function)(*map(nf.asarray, job.inputs.values())).item()
    assert peer.prepare("train_mlp")["output"]["mean"] == pytest.approx(first, rel=1e-5)
    peer.run(1, 3, 3, left=True)
