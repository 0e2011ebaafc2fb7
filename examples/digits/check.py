"""A headless browser uses the page as people do, on both devices; what it shows is compared with what Python says."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from nearfield.data import Dataset
from nearfield.deploy import Server, load
from nearfield.train import predict
from train import Digits

PICTURES = Path(__file__).resolve().parents[2] / ".cache" / "screenshots"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
    "--disable-background-networking",
]  # fmt: skip
DIGITS = 20
LEAST_EQUAL = 0.9
TOLERANCE = 1e-4
SIZE, PEN = 64, 0.095  # of the page's picture, and of its pen

COMPARE = """async ([device, drawings]) => {
  const { load } = await import("./nearfield.js");
  const model = await load("./model/", { device });
  const found = [];
  for (const drawing of drawings) found.push([...(await model.run({ drawing })).probabilities]);
  model.close();
  return found;
}"""


class WrongError(Exception):
    """What is not as it must be."""


def must(holds: Any, words: str) -> None:
    """Go on only if it holds."""
    if not holds:
        raise WrongError(words)


# -- strokes that make a picture ---------------------------------------------------------------------------------------


def enlarged(image: np.ndarray) -> np.ndarray:
    """8 × 8 intensities as 64 × 64 ink from 0 to 1, with a margin around them."""
    place = (np.arange(SIZE) + 0.5 - 4) / (SIZE - 8) * 8 - 0.5
    near = np.maximum(1 - np.abs(place[:, None] - np.arange(8)), 0)
    return near @ (image / 16) @ near.T


REACH = np.arange(-3, 4)
DISC = (REACH[:, None] ** 2 + REACH**2) <= (PEN * SIZE / 2) ** 2


def dabbed(image: np.ndarray, strength: float) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """What a round pen leaves (with three pixels around it), and where it was put down: always where it helps most."""
    wanted = np.pad(strength * enlarged(image) - 1, 3, constant_values=-1)
    painted = np.zeros_like(wanted, bool)
    dabs: list[tuple[int, int]] = []
    while len(dabs) < 150:
        gain = np.where(painted, 0, wanted)
        sums = (np.lib.stride_tricks.sliding_window_view(gain, DISC.shape) * DISC).sum((2, 3))
        y, x = divmod(int(sums.argmax()), SIZE)
        if sums[y, x] < 2:
            break
        painted[y : y + 7, x : x + 7] |= DISC
        dabs.append((x, y))
    return painted, dabs


def nearest(image: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The dabs, of several strengths, that leave most nearly the image's ink in each cell."""

    def miss(painted: np.ndarray) -> float:
        cells = painted[7:-7, 7:-7].reshape(8, 7, 8, 7).mean((1, 3))
        return float(np.abs(cells - image / 16).mean())

    return min((dabbed(image, strength) for strength in (1.6, 1.8, 2.0, 2.2, 2.4)), key=lambda made: miss(made[0]))


def strokes(image: np.ndarray) -> list[list[tuple[float, float]]]:
    """Lines that a pen draws without leaving the ink."""
    painted, dabs = nearest(image)
    lines: list[list[tuple[int, int]]] = []
    while dabs:
        pen = lines[-1][-1] if lines else dabs[0]
        near = min(dabs, key=lambda d: (d[0] - pen[0]) ** 2 + (d[1] - pen[1]) ** 2)
        dabs.remove(near)
        way = near[0] - pen[0], near[1] - pen[1]
        between = [(round(pen[0] + way[0] * t), round(pen[1] + way[1] * t)) for t in (0.25, 0.5, 0.75)]
        if lines and all(painted[y : y + 7, x : x + 7][DISC].mean() > 0.9 for x, y in between):
            lines[-1].append(near)
        else:
            lines.append([near])
    return [[((x + 0.5) / SIZE, (y + 0.5) / SIZE) for x, y in line] for line in lines]


# -- the page ----------------------------------------------------------------------------------------------------------


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page, ready; complains if it writes an error, or asks any other server for anything."""
    context = browser.new_context(**options)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    known = (url.split("?", maxsplit=1)[0], "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(known) else wrong.append(request.url))
    page.goto(url)
    page.wait_for_selector("#devices:enabled", state="attached", timeout=120_000)
    must(page.get_attribute("body", "data-device"), f"the page loads no model: {page.inner_text('#status')}")
    yield page
    context.close()
    must(not wrong, f"the page complains, or looks outside: {wrong}")


def settled(page: Page) -> str:
    """The answer, when the page has it."""
    page.wait_for_selector("body[data-busy=false]", timeout=120_000)
    return page.get_attribute("body", "data-answer") or ""


def draw(page: Page, image: np.ndarray) -> str:
    """Draw on the paper with the mouse; the page's answer."""
    page.click("#clear") if page.is_enabled("#clear") else None
    box = page.locator("#sheet").bounding_box()
    for line in strokes(image):
        for n, (x, y) in enumerate(line):
            place = box["x"] + x * box["width"], box["y"] + y * box["height"]
            page.mouse.move(*place, steps=2 if n else 1)  # steps, because the page rounds corners off
            if n == 0:
                page.mouse.down()
        page.mouse.up()
    return settled(page)


def check_drawings(page: Page, images: np.ndarray, labels: np.ndarray, said: np.ndarray) -> None:
    """Held-out digits, drawn: the page says what Python says of the original, and what is right."""
    answers = np.array([int(draw(page, image)) for image in images])
    wrong = [f"{was} as {now}" for was, now in zip(labels, answers, strict=True) if was != now]
    print(f"  misread: {', '.join(wrong) or 'none'}")
    python, right = (answers == said).mean(), (answers == labels).mean()
    status = page.inner_text("#status")
    print(f"  {len(images)} digits drawn: {python:.0%} as Python reads the original, {right:.0%} right; {status}")
    words = f"drawn digits are read as {answers.tolist()}; they are {labels.tolist()}"
    must(python >= LEAST_EQUAL and right >= LEAST_EQUAL, words)


def check_words(page: Page) -> None:
    """What a screen reader finds."""
    said, digit = page.locator("#said"), page.get_attribute("body", "data-answer")
    words = said.text_content() or ""
    is_live = said.get_attribute("aria-live") == "polite"
    must(is_live and words.startswith(f"{digit}, ") and words.endswith("%"), f"the live region says {words!r}")
    values = [float(m.get_attribute("aria-valuenow")) for m in page.get_by_role("meter").all()]
    must(len(values) == 10 and abs(sum(values) - 100) < 1, f"the meters say {values}")
    must(page.get_by_role("application", name="Paper for one digit").count() == 1, "the paper has no name")
    must(page.get_by_role("group", name="Runs on").get_by_role("radio").count() == 2, "the devices are no group of two")
    must(page.get_by_role("button", name="Clear").is_enabled(), "there is no way to clear")


def check_keyboard(browser: Browser, url: str) -> None:
    """A seven, with keys alone, in the dark."""
    with opened(browser, url, color_scheme="dark") as page:
        page.keyboard.press("Tab")
        must(page.evaluate("document.activeElement.id") == "sheet", "the first Tab does not lead to the paper")
        use_keys(page)


def use_keys(page: Page) -> None:
    """Draw, undo, clear."""
    slope = "ArrowDown ArrowDown ArrowLeft " * 4
    for keys in ("ArrowLeft " * 4, "Space", "ArrowRight " * 8, slope, "ArrowDown", "Space"):
        for key in keys.split():
            page.keyboard.press(key)
    answer, said = settled(page), page.text_content("#said") or ""
    must(answer == "7" and said.startswith("7"), f"a seven from the keyboard is read as {answer!r}")
    page.screenshot(path=PICTURES / "digits-dark.png")
    page.keyboard.press("Backspace")
    must(settled(page) == "" and "Nothing" in page.inner_text("#answer"), "Backspace does not undo")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    must(settled(page) == "", "Escape does not clear")


def check_touch(browser: Browser, url: str) -> None:
    """A one, with a finger, on a telephone."""
    telephone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with opened(browser, url, **telephone, device_scale_factor=2) as page:
        box = page.locator("#sheet").bounding_box()
        session = page.context.new_cdp_session(page)
        for n in range(12):
            point = {"x": box["x"] + box["width"] * 0.5, "y": box["y"] + box["height"] * (0.15 + 0.06 * n)}
            kind = "touchMove" if n else "touchStart"
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_selector(".drawn")
        answer = settled(page)
        page.screenshot(path=PICTURES / "digits-phone.png")
        must(answer == "1", f"a one from a finger is read as {answer!r}")
        must(page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than a telephone")


def check_device(
    browser: Browser, site: str, device: str, images: np.ndarray, labels: np.ndarray, said: np.ndarray, model: Any
) -> None:
    """Everything, on one device."""
    url = f"{site}?device={device}"
    with opened(browser, url, viewport={"width": 1000, "height": 780}) as page:
        found = page.get_attribute("body", "data-device")
        print(f"{device}:")
        must(found == device, f"the page runs on {found}")
        drawings = np.stack([enlarged(image) for image in images]).astype("float32")
        there = np.array(page.evaluate(COMPARE, [device, drawings.reshape(len(images), -1).tolist()]))
        here = np.concatenate([model.run({"drawing": d.reshape(1, SIZE, SIZE, 1)})["probabilities"] for d in drawings])
        error = np.abs(here - there).max()
        print(f"  the model gives what it gives in Python: largest difference {error:.1e}")
        must(error < TOLERANCE, f"the model gives other numbers than in Python: {error}")
        check_drawings(page, images, labels, said)
        check_words(page)
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"digits-{device}.png")
    check_keyboard(browser, url)
    check_touch(browser, url)


def has_browser() -> bool:
    """Whether there is one; says what to do if not."""
    found = os.access(CHROMIUM, os.X_OK)
    if not found:
        print(f"No browser at {CHROMIUM}: install Chromium (as root: apt-get install chromium), or set CHROMIUM.")
    return found


def check(folder: Path, network: Digits, held_out: Dataset) -> int:
    """0 if the page works on both devices, else 1; says what does not."""
    images, labels = (np.asarray(a.numpy()) for a in held_out.arrays)
    said = predict(network, held_out.arrays[0]).numpy().argmax(-1)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[: DIGITS // 10] for digit in range(10)])
    images, labels, said = images[chosen, :, :, 0], labels[chosen], said[chosen]
    model = load(folder / "model")
    print(model)
    with Server(folder) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for device in ("wasm", "webgpu"):
                check_device(browser, server.url, device, images, labels, said, model)
        except WrongError as error:
            print(f"  WRONG: {error}")
            return 1
        finally:
            browser.close()
    print(f"All is well. Pictures: {PICTURES}")
    return 0


if __name__ == "__main__":
    raise SystemExit("python demo.py --check")
