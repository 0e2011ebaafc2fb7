"""Bar charts as SVG: readable without colour, with a text for those who do not see them."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Bar", "chart"]

COLOURS = {  # dark enough on white and light enough on black; told apart by their order and label too
    "Nearfield": "#0b7a75", "LiteRT.js": "#b4551e", "ONNX Runtime Web": "#6a5acd", "TensorFlow.js": "#a67c00",
    "jax-js": "#888888",
}  # fmt: skip
LONGEST = 4.0  # times the reference; what is longer is cut and says its value
LEFT, WIDTH, LINE, GAP = 270, 760, 15, 12


@dataclass(frozen=True)
class Bar:
    """The bars of one row: milliseconds by name, and the milliseconds that are one unit."""

    title: str
    values: dict[str, float]
    unit: float


def chart(title: str, rows: list[Bar]) -> str:
    """An SVG image; each row's bars are in units of its own."""
    scale = (WIDTH - LEFT - 110) / LONGEST
    parts: list[str] = []
    y = 34.0
    top = y
    for row in rows:
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(row.title)}</text>')
        for name, value in row.values.items():
            length = min(value / row.unit, LONGEST) * scale
            label = f"{value:.3g} ms" + (" (cut)" if value / row.unit > LONGEST else "")
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{LINE - 3}" fill="{COLOURS[name]}"/>'
                f'<text class="s" x="{LEFT + length + 5:.1f}" y="{y + 10}">{escape(name)} {label}</text>'
            )
            y += LINE
        y += GAP
    one = LEFT + scale
    ends = f'x1="{one:.1f}" y1="{top - 6}" x2="{one:.1f}" y2="{y - GAP}"'
    rule = f'<line {ends} stroke="currentColor" stroke-dasharray="3 3"/>'
    words = "; ".join(f"{row.title}: " + ", ".join(f"{n} {v:.3g} ms" for n, v in row.values.items()) for row in rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img" aria-labelledby="t d">\n'
        f'<title id="t">{escape(title)}</title>\n<desc id="d">{escape(words)}</desc>\n'
        "<style>svg{color:#222;background:#fff}text{font:12px sans-serif;fill:currentColor}.s{font-size:10px}"
        "@media(prefers-color-scheme:dark){svg{color:#ddd;background:#111}}</style>\n"
        f'<text x="8" y="18">{escape(title)}</text>\n' + "\n".join([*parts, rule] if rows else []) + "\n</svg>\n"
    )
