"""Chart: line charts as SVG for pages and notebooks, and as text for terminals."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10
from os import PathLike
from pathlib import Path

__all__ = ["Chart"]

Series = Mapping[str, Sequence[float]]

COLOURS = ("#3b7dd8", "#e8853d", "#3f9d6b", "#b85fb3", "#8a6d3b", "#4f9fb0")
INK, SOFT, GRID = "#333b48", "#7a8494", "#e7eaef"
WIDTH, HEIGHT, GAP = 360, 240, 24
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 46, 38


class Chart:
    """Panels side by side, each with one or more curves over 1, 2, 3, …

    panels   title -> {name of the curve -> values}; values that are not finite leave a gap
    """

    def __init__(self, panels: Mapping[str, Series], *, x_label: str = "") -> None:
        self.panels, self.x_label = {title: dict(series) for title, series in panels.items()}, x_label

    @property
    def svg(self) -> str:
        """The chart as an SVG document."""
        width = max(len(self.panels), 1) * (WIDTH + GAP) - GAP
        parts = [
            _panel(title, series, self.x_label, n * (WIDTH + GAP))
            for n, (title, series) in enumerate(self.panels.items())
        ]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
            f'role="img" style="max-width:100%;height:auto" font-family="system-ui, sans-serif" font-size="11">'
            f'<rect width="{width}" height="{HEIGHT}" rx="6" fill="#ffffff"/>{"".join(parts)}</svg>'
        )

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg

    def save(self, path: str | PathLike[str]) -> None:
        """Write the SVG."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def __str__(self) -> str:
        return "\n\n".join(_text(title, series) for title, series in self.panels.items())

    __repr__ = __str__


def _finite(series: Series) -> list[float]:
    return [v for values in series.values() for v in values if isfinite(v)]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose low … high."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    return [step * n for n in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:.6g}" if value else "0"


def _whole_ticks(n: int) -> list[int]:
    """Epochs to label: at most seven, from 1."""
    if n <= 7:
        return list(range(1, n + 1))
    step = max(round(ticks(0, n, 6)[1]), 1)
    return [1, *range(step, n + 1, step)] if step > 1 else list(range(1, n + 1))


def _panel(title: str, series: Series, x_label: str, offset: float) -> str:
    """One panel: grid, axes, curves, legend."""
    values = _finite(series) or [0.0, 1.0]
    marks = ticks(min(values), max(values))
    count = max(map(len, series.values()), default=1)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    low, span = marks[0], marks[-1] - marks[0]

    def x(n: float) -> float:
        return LEFT + across * ((n - 1) / (count - 1) if count > 1 else 0.5)

    def y(v: float) -> float:
        return TOP + down * (1 - (v - low) / span)

    grid = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="{GRID}"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 3.5:.1f}" text-anchor="end" fill="{SOFT}">{_label(v)}</text>'
        for v in marks
    )
    bottom = "".join(
        f'<line x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{TOP + down}" y2="{TOP + down + 4}" stroke="{SOFT}"/>'
        f'<text x="{x(n):.1f}" y="{TOP + down + 16}" text-anchor="middle" fill="{SOFT}">{n}</text>'
        for n in _whole_ticks(count)
    )
    curves = "".join(_curve(values, COLOURS[i % len(COLOURS)], x, y) for i, values in enumerate(series.values()))
    return (
        f'<g transform="translate({offset},0)">'
        f'<text x="{LEFT}" y="20" font-size="13" font-weight="600" fill="{INK}">{escape(title)}</text>'
        f"{_legend(series)}{grid}"
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{TOP + down}" y2="{TOP + down}" stroke="{SOFT}"/>{bottom}'
        f'<text x="{LEFT + across / 2}" y="{HEIGHT - 6}" text-anchor="middle" fill="{SOFT}">{escape(x_label)}</text>'
        f"{curves}</g>"
    )


def _legend(series: Series) -> str:
    parts, at = [], float(LEFT)
    for i, name in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        parts.append(
            f'<line x1="{at}" x2="{at + 14}" y1="33" y2="33" stroke="{colour}" stroke-width="2.5" '
            f'stroke-linecap="round"/>'
            f'<text x="{at + 19}" y="36.5" fill="{SOFT}">{escape(name)}</text>'
        )
        at += 32 + 6.2 * len(name)
    return "".join(parts)


def _curve(values: Sequence[float], colour: str, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """A line through neighbouring finite values; points where there are few."""
    runs: list[list[tuple[float, float]]] = [[]]
    for n, v in enumerate(values):
        if isfinite(v):
            runs[-1].append((x(n + 1), y(v)))
        elif runs[-1]:
            runs.append([])
    lines = "".join(
        f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in run)}" fill="none" stroke="{colour}" '
        f'stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/>'
        for run in runs if len(run) > 1
    )  # fmt: skip
    few = len(values) <= 20
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{colour}"/>'
        for run in runs
        for a, b in run
        if few or len(run) == 1
    )
    return lines + dots


def _text(title: str, series: Series, width: int = 60, height: int = 10) -> str:
    """The panel in braille dots, two by four to a character; curves are told apart by a letter at their end."""
    values = _finite(series)
    if not values:
        return f"{title}: no finite value"
    marks = ticks(min(values), max(values), 3)
    low, span = marks[0], marks[-1] - marks[0]
    dots: dict[tuple[int, int], int] = {}
    count = max(map(len, series.values()))
    for points in series.values():
        _draw(
            dots,
            [
                ((n / max(count - 1, 1)) * (2 * width - 1), (v - low) / span * (4 * height - 1))
                for n, v in enumerate(points)
                if isfinite(v)
            ],
        )
    rows = [
        "".join(chr(0x2800 + dots.get((column, row), 0)) for column in range(width)) for row in reversed(range(height))
    ]
    for name, points in series.items():
        last = next((v for v in reversed(points) if isfinite(v)), None)
        if last is not None:
            row = height - 1 - min(int((last - low) / span * (4 * height - 1)) // 4, height - 1)
            rows[row] += f" {name} {last:.4g}"
    scale = [_label(marks[-1]), *[""] * (height - 2), _label(marks[0])]
    wide = max(map(len, scale))
    body = [f"{mark:>{wide}} ┤{row}" for mark, row in zip(scale, rows, strict=True)]
    return "\n".join([title, *body, f"{'':>{wide}} └{'─' * width}"])


_DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))  # of a braille character, from the bottom


def _draw(dots: dict[tuple[int, int], int], points: Sequence[tuple[float, float]]) -> None:
    """Set the dots on the straight lines between the points."""
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[-1]] if points else [], strict=True):
        steps = max(round(abs(x1 - x0)), round(abs(y1 - y0)), 1)
        for i in range(steps + 1):
            a, b = round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)
            key = (a // 2, b // 4)
            dots[key] = dots.get(key, 0) | _DOTS[a % 2][b % 4]
