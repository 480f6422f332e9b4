"""Small drawings in SVG: for light and dark, legible on a phone, the same bytes for the same numbers."""

from __future__ import annotations

from html import escape

WIDTH = 420  # what a phone shows at nearly full size; text of 13 stays legible there

STYLE = """
svg { --paper: #ffffff; --ink: #1f2328; --faint: #6b7280; --line: #d5d9df; --call: #2563eb; --wait: #b9cdf8;
  --fresh: #1a7f5a; --stale: #d08700; --failed: #c62828; }
@media (prefers-color-scheme: dark) { svg { --paper: #16191d; --ink: #e6e8eb; --faint: #9aa3ad;
  --line: #3a4048; --call: #7aa7ff; --wait: #2f4775; --fresh: #4cc38a;
  --stale: #f0b429; --failed: #ff7b72; } }
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.title { font-weight: 600; } .small { font-size: 12px; fill: var(--faint); } .strong { font-weight: 600; }
.paper { fill: var(--paper); stroke: var(--line); } .line { stroke: var(--line); fill: none; }
.ink { stroke: var(--ink); fill: none; } .box { fill: var(--paper); stroke: var(--ink); }
.tip { fill: var(--ink); }
"""
for _kind in ("call", "wait", "fresh", "stale", "failed", "faint"):
    STYLE += f".{_kind} {{ fill: var(--{_kind}); }}\n"


def number(value: float) -> str:
    """As short as a tenth of a pixel allows."""
    return f"{value:.1f}".removesuffix(".0")


class Drawing:
    """Shapes on a sheet of paper of its own, so that it is legible whatever lies behind it."""

    def __init__(self, title: str, description: str) -> None:
        self.title, self.description = title, description
        self.shapes: list[str] = []
        self.bottom = 0.0  # the lowest place used

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        self.bottom = max(self.bottom, y)
        attributes = f' class="{kind}"' if kind else ""
        attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
        self.shapes.append(f'<text x="{number(x)}" y="{number(y)}"{attributes}>{escape(words)}</text>')

    def bar(self, x: float, y: float, width: float, height: float, kind: str, words: str = "") -> None:
        """A rectangle; its words are shown where it is opened by itself and pointed at."""
        self.bottom = max(self.bottom, y + height)
        place = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 1.0))}" height="{number(height)}"'
        inside = f"<title>{escape(words)}</title>" if words else ""
        self.shapes.append(f'<rect class="{kind}" {place} rx="1.5">{inside}</rect>')

    def line(self, x: float, y: float, x2: float, y2: float, kind: str = "line", tip: bool = False) -> None:
        end = ' marker-end="url(#tip)"' if tip else ""
        place = f'x1="{number(x)}" y1="{number(y)}" x2="{number(x2)}" y2="{number(y2)}"'
        self.shapes.append(f'<line class="{kind}" {place}{end}/>')

    def path(self, steps: str, kind: str = "ink", tip: bool = False) -> None:
        end = ' marker-end="url(#tip)"' if tip else ""
        self.shapes.append(f'<path class="{kind}" d="{steps}"{end}/>')

    def axis(self, y: float, left: float, right: float, marks: list[tuple[float, str]]) -> None:
        """A line with marks, each at a place from left to right."""
        self.line(left, y, right, y)
        for x, words in marks:
            self.line(x, y, x, y + 4)
            anchor = "start" if x < left + 10 else "end" if x > right - 14 else "middle"
            self.text(x, y + 17, words, "small", anchor)

    def legend(self, y: float, entries: list[tuple[str, str]], left: float = 14) -> None:
        """What colours mean, in as many rows as there is room for."""
        x = left
        for kind, words in entries:
            width = 18 + 6.6 * len(words) + 14
            if x + width > WIDTH - 6 and x > left:
                x, y = left, y + 19
            self.bar(x, y - 10, 12, 11, kind)
            self.text(x + 18, y, words, "small")
            x += width

    def __str__(self) -> str:
        height = number(self.bottom + 14)
        tip = '<path class="tip" d="M0 0 L8 4 L0 8 z"/>'
        size = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
        paper = f'width="{WIDTH - 1}" height="{number(self.bottom + 13)}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self.description)}</desc>",
                f"<style>{STYLE}</style>",
                f'<defs><marker id="tip" {size}>{tip}</marker></defs>',
                f'<rect class="paper" x="0.5" y="0.5" {paper} rx="6"/>',
                *self.shapes,
                "</svg>\n",
            ]
        )
