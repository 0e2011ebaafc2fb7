"""Every operation in the browser: the cases of tests/cases.py, compiled here, run there by the runner, no Python."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from browser.case_programs import TARGETS, bundle_of
from browser.harness import Site, watched_page
from nearfield.op import REGISTRY, Op
from test_ops import complaint

OPS = [pytest.param(op, id=op.name) for op in REGISTRY.values()]


@pytest.fixture(scope="module")
def folder(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in it, pages find below /cases/."""
    folder = tmp_path_factory.mktemp("cases")
    site.folders["/cases/"] = folder
    return folder


@pytest.fixture(scope="module")
def runner(browser: Browser, site: Site) -> Iterator[Page]:
    """A page with the runner; its devices stay open from test to test."""
    with watched_page(browser) as page:
        page.goto(f"{site.url}/pages/cases.html")
        page.wait_for_function("'runProgram' in globalThis")
        yield page


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", OPS)
def test_op_means_the_same_in_the_browser(
    op: Op, target: str, runner: Page, folder: Path, count_cases: Callable[[str, int], None]
) -> None:
    """Within the row's tolerance, as natively; and nothing is left in the device's memory."""
    bundle = bundle_of(op, target)
    (folder / f"{op.name}.{target}.nfp").write_bytes(bundle.program)
    (folder / f"{op.name}.{target}.bin").write_bytes(bundle.inputs)
    device = target.split("-", maxsplit=1)[0]
    addresses = [f"../cases/{op.name}.{target}.{end}" for end in ("nfp", "bin")]
    answer = runner.evaluate("([name, program, inputs]) => runProgram(name, program, inputs)", [device, *addresses])
    assert answer["left"] == [0, 0, 0]
    got = bundle.arrays(answer["outputs"])
    found = [text for case, y in zip(bundle.cases, got, strict=True) if (text := complaint(device, case, y))]
    assert not found, "\n".join(found)
    count_cases(f"runner, {target}", len(bundle.cases))
