"""What a run measured: numbers, files, charts, tables."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from nearfield.train import Chart, ConfusionTable, History
from nearfield.train.chart import ticks

SVG = "{http://www.w3.org/2000/svg}"
NAN = float("nan")


def course(n: int = 6) -> History:
    history = History()
    for i in range(n):
        history.add({"loss": 1 / (i + 1), "accuracy": 1 - 0.5 / (i + 1), "val_loss": 1.2 / (i + 1)})
    return history


def test_a_history_is_a_dict_of_lists() -> None:
    history = course(3)
    assert list(history) == ["loss", "accuracy", "val_loss"]
    assert history["loss"] == [1, 0.5, 1 / 3]
    assert dict(history) == history.to_dict()
    assert history.epochs == 3
    history.add({"loss": 0.1, "late": 1.0})
    assert history["late"][3] == 1
    assert np.isnan(history["late"][:3] + history["val_loss"][3:]).all()


def test_files(tmp_path: Path) -> None:
    history = course(2)
    assert history.to_csv(tmp_path / "h.csv") == "epoch,loss,accuracy,val_loss\n1,1.0,0.5,1.2\n2,0.5,0.75,0.6\n"
    assert (tmp_path / "h.csv").read_text().count("\n") == 3
    history.stopped = "enough"
    history.save(tmp_path / "h.json")
    again = History.load(tmp_path / "h.json")
    assert again.to_dict() == history.to_dict()
    assert again.stopped == "enough"


def test_text_shows_the_course() -> None:
    assert str(course(8)).splitlines() == [
        "8 epochs",
        "loss      █▄▂▂▁▁▁▁  1 → 0.125, best 0.125 in epoch 8",
        "accuracy  ▁▅▇▇████  0.5 → 0.9375, best 0.9375 in epoch 8",
        "val_loss  █▄▂▂▁▁▁▁  1.2 → 0.15, best 0.15 in epoch 8",
    ]
    assert str(History()) == "History of no epoch"
    assert len(str(course(500)).splitlines()[1]) < 120


@pytest.mark.parametrize(
    "history",
    [
        course(1),
        course(2),
        course(300),
        History(),
        History({"loss": [NAN, NAN]}),
        History({"a<b": [1.0, NAN, 2.0, float("inf")]}),
        History({"x": [3.0, 3.0]}),
    ],
)
def test_a_chart_is_valid_svg(history: History) -> None:
    root = ElementTree.fromstring(history.plot().svg)
    assert root.tag == SVG + "svg"
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for tag, names in (("circle", ("cx", "cy")), ("line", ("x1", "y1", "x2", "y2")), ("text", ("x", "y"))):
        for item in root.iter(SVG + tag):
            numbers = [float(item.attrib[n]) for n in names]
            assert all(np.isfinite(numbers))
            assert min(numbers) >= 0
            assert max(numbers) <= max(width, height)
    assert "nan" not in history.plot().svg
    assert history.plot()._repr_svg_() == history._repr_html_()


def test_a_chart_has_a_panel_for_each_measure_and_a_curve_for_each_part(tmp_path: Path) -> None:
    chart = course().plot()
    root = ElementTree.fromstring(chart.svg)
    assert [t.text for t in root.iter(SVG + "text") if t.attrib.get("font-weight")] == ["loss", "accuracy"]
    assert len(list(root.iter(SVG + "polyline"))) == 3
    assert [t.text for t in root.iter(SVG + "text") if t.text in ("training", "validation")] == [
        "training",
        "validation",
        "training",
    ]
    points = next(root.iter(SVG + "polyline")).attrib["points"].split()
    heights = [float(p.split(",")[1]) for p in points]
    assert heights == sorted(heights), "a falling loss goes down the page"
    chart.save(tmp_path / "c.svg")
    assert ElementTree.parse(tmp_path / "c.svg").getroot().tag == SVG + "svg"


def test_a_chart_in_a_terminal() -> None:
    text = str(Chart({"loss": {"training": [4.0, 3.0, 2.0, 1.0]}}))
    lines = text.splitlines()
    assert lines[0] == "loss"
    assert lines[1].startswith("4 ┤⠉⠑⠒")
    assert "training 1" in text
    assert lines[-1].startswith("  └───")
    assert str(Chart({"loss": {"training": [NAN]}})) == "loss: no finite value"


def test_ticks_are_round_and_enclose() -> None:
    assert ticks(0.13, 0.87) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for low, high in [(0, 1), (-3, 4), (1e-9, 3e-9), (123456, 123457), (5, 5), (0, 0), (-1e30, 1e30)]:
        found = ticks(low, high)
        assert found[0] <= low * (1 - 1e-9) + 1e-15 or np.isclose(found[0], low)
        assert found[-1] >= high or np.isclose(found[-1], high)
        assert 2 <= len(found) <= 9


def test_a_confusion_matrix_is_a_table() -> None:
    table = ConfusionTable([[8, 2], [0, 5]], ["cat", "dog"])
    assert str(table).splitlines() == [
        "was \\ seen as │ cat │ dog │  right",
        "──────────────┼─────┼─────┼───────",
        "cat           │   8 │   2 │  80.0%",
        "dog           │   0 │   5 │ 100.0%",
    ]
    html = ElementTree.fromstring(table._repr_html_())
    assert [cell.text for cell in html.iter("td")] == ["8", "2", "0", "5"]
    with pytest.raises(ValueError, match="3 labels for 2 classes"):
        ConfusionTable([[1, 0], [0, 1]], ["a", "b", "c"])
