"""The pictures of what was measured, as SVG: how many answers, as a ratio to the limit, and how long one request takes.
Used by `report.py`; knows only numbers and names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, ROW, HEAD, NAMES, RIGHT = 860, 22, 34, 270, 150
INK, FAINT, GRID = "#1f2328", "#59636e", "#d8dee4"
COLOURS = {"ours": "#1a7f64", "limit": "#9aa4af", "other": "#c77c2e"}
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Bar:
    """`kind` is a key of COLOURS. `note` stands behind the bar. `end` is where a line from `value` on leads to."""

    name: str
    kind: str
    value: float
    note: str
    end: float | None = None


@dataclass(frozen=True)
class Panel:
    """Bars under a title."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Chart:
    """`subtitle` says what the axis is. A logarithmic one is for dots with lines, any other for bars from zero."""

    title: str
    subtitle: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]]
    log: bool = False
    most: float = 1.0

    def svg(self) -> str:
        """The whole picture."""
        top, parts = 96, []
        for panel in self.panels:
            parts.append(_text(24, top + 20, panel.title, weight=600))
            top += HEAD
            bottom = top + ROW * len(panel.bars)
            for value in self._ticks():
                at = self._x(value)
                parts.append(f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{top}' y2='{bottom}' stroke='{GRID}'/>")
                parts.append(_text(at, bottom + 13, f"{value:g}", FAINT, 10, "middle"))
            for number, bar in enumerate(panel.bars):
                parts += self._bar(bar, top + ROW * number)
            top = bottom + 22
        head = [_text(24, 34, self.title, size=18, weight=600), _text(24, 56, self.subtitle, FAINT)]
        at = 24
        shown = {bar.kind for panel in self.panels for bar in panel.bars}
        for kind, name in ((kind, name) for kind, name in self.legend if kind in shown):
            head.append(f"<rect x='{at}' y='70' width='11' height='11' rx='2' fill='{COLOURS[kind]}'/>")
            head.append(_text(at + 17, 80, name, FAINT))
            at += 40 + 7 * len(name)
        height = top + 12
        frame = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img' {FONT}>"
        back = f"<title>{escape(self.title)}</title><rect width='{WIDTH}' height='{height}' fill='#ffffff'/>"
        return "\n".join([frame, back, *head, *parts, "</svg>"]) + "\n"

    def _bar(self, bar: Bar, top: float) -> list[str]:
        middle, colour = top + ROW / 2, COLOURS[bar.kind]
        at, end = self._x(bar.value), self._x(bar.end if bar.end is not None else bar.value)
        name = _text(NAMES - 10, middle + 4, bar.name, anchor="end")
        if self.log:
            line = (
                f"<line x1='{at:.1f}' x2='{end:.1f}' y1='{middle}' y2='{middle}' stroke='{colour}' stroke-width='2'/>"
            )
            tick = f"<line x1='{end:.1f}' x2='{end:.1f}' y1='{middle - 5}' y2='{middle + 5}' stroke='{colour}'/>"
            shape = f"{line}{tick}<circle cx='{at:.1f}' cy='{middle}' r='5' fill='{colour}'/>"
        else:
            width = max(at - NAMES, 1)
            shape = f"<rect x='{NAMES}' y='{top + 4}' width='{width:.1f}' height='{ROW - 8}' rx='2' fill='{colour}'/>"
            if bar.value > self.most:  # a gap tells that it is cut
                shape += f"<path d='M{at - 14:.1f} {top + 20} l6 -18' stroke='#ffffff' stroke-width='4'/>"
        return [name, shape, _text(max(at, end) + 9, middle + 4, bar.note, FAINT, 11)]

    def _ends(self) -> tuple[float, float]:
        if not self.log:
            return 0.0, self.most
        values = [value for panel in self.panels for bar in panel.bars for value in (bar.value, bar.end or bar.value)]
        return 10.0 ** floor(log10(min(values))), 10.0 ** ceil(log10(max(values)))

    def _x(self, value: float) -> float:
        least, most = self._ends()
        value = min(max(value, least), most)
        part = log10(value / least) / log10(most / least) if self.log else value / most
        return NAMES + part * (WIDTH - NAMES - RIGHT)

    def _ticks(self) -> list[float]:
        least, most = self._ends()
        if self.log:
            return [10.0**power for power in range(round(log10(least)), round(log10(most)) + 1)]
        return [most * quarter / 4 for quarter in range(5)]


def _text(
    x: float, y: float, text: str, fill: str = INK, size: int = 12, anchor: str = "start", weight: int = 400
) -> str:
    style = f"fill='{fill}' font-size='{size}' text-anchor='{anchor}' font-weight='{weight}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>"
