"""The shapes of a drawing as SVG, and their colours in light and dark."""

from __future__ import annotations

__all__ = ["HATCH", "MARKS", "STYLE", "cross", "glyph", "open_edge", "px", "swatch"]

STYLE = """
.sf{--ink:#1c2430;--dim:#5b6675;--line:#d9dee6;--band:#f6f8fa;--call:#0b6bcb;--wait:#9fb6d1;--renewal:#0d8f7b;
--bulk:#6550c9;--shared:#b7791f;--tracked:#7a8594;--bad:#c2410c;--hit:#15803d;--stale:#b45309;
--drop:#57606a;--put:#0b6bcb;--on:#fff;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
@media (prefers-color-scheme: dark){.sf{--ink:#e6eaf0;--dim:#9aa7b6;--line:#2c3542;--band:#171d26;
--call:#4c9df0;--wait:#4f6b8a;--renewal:#2fb8a0;--bulk:#9a8bf0;--shared:#e0a94a;--tracked:#8b97a6;--bad:#f08a5d;--hit:#4ade80;
--stale:#f5b041;--drop:#9aa7b6;--put:#4c9df0;--on:#0b0f14}}
.sf text{fill:var(--ink)}.sf .dim{fill:var(--dim)}.sf .small{font-size:10.5px}.sf .name{font-weight:600}
.sf .head{font-weight:700;font-size:14px}.sf .line{stroke:var(--line);stroke-width:1;fill:none}
.sf .band{fill:var(--band)}.sf .call,.sf .refresh{fill:var(--call)}.sf .wait{fill:var(--wait)}
.sf .renewal{fill:var(--renewal)}.sf .bulk{fill:var(--bulk)}.sf .shared{fill:var(--shared);fill-opacity:.55}
.sf .tracked{fill:var(--tracked)}.sf .bad{stroke:var(--bad);stroke-width:2;paint-order:stroke}
.sf .failed{fill:var(--bad)}.sf .degraded{fill:var(--bad);fill-opacity:.16}.sf .area{fill-opacity:.6}
.sf .on{fill:var(--on);font-size:10.5px;font-weight:600;pointer-events:none}.sf .link{stroke:var(--bulk);
stroke-width:1.5;fill:none}.sf .knot{fill:var(--bulk)}.sf .open{fill:none;stroke:var(--ink);stroke-width:1.4;
stroke-dasharray:2 2}.sf .hit{fill:var(--hit)}.sf .stale_hit{fill:var(--stale)}.sf .drop{fill:none;
stroke:var(--drop);stroke-width:1.4}.sf .put{fill:none;stroke:var(--put);stroke-width:1.4}
.sf .trouble{fill:none;stroke:var(--bad);stroke-width:1.8}
.sf g.s:hover rect,.sf g.s:hover path{filter:brightness(1.15);stroke:var(--ink);stroke-width:1}
"""

MARKS = {  # the form of each kind of event; of others it is a cross
    "hit": "hit",
    "stale_hit": "stale_hit",
    "invalidate": "drop",
    "evict": "drop",
    "expire": "drop",
    "gap": "drop",
    "put": "put",
    "claimed": "put",
    "adopted": "put",
}

HATCH = (  # a pattern; a drawing that is not shown must not be the one that has it
    '<defs><pattern id="sf-hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform='
    '"rotate(45)"><rect x="0" y="0" width="2" height="6" fill="#fff" fill-opacity=".35"/></pattern></defs>'
)


def swatch(kind: str) -> str:
    """Return a small picture of a kind of shape, 18 by 12 pixels, for the legend."""
    if kind in ("hit", "stale_hit", "drop", "put", "trouble"):
        return glyph(kind, 9, 6)
    if kind == "failed":
        return '<rect class="call bad" x="1" y="1" width="16" height="10" rx="2"/>'
    if kind == "wait":
        return '<rect class="wait" x="0" y="3" width="18" height="7" rx="1.5"/>'
    shape = f'<rect class="{kind}" x="0" y="0" width="18" height="12" rx="2"/>'
    if kind in ("renewal", "shared"):
        shape += '<rect fill="url(#sf-hatch)" x="0" y="0" width="18" height="12"/>'
    if kind == "bulk":
        shape += '<circle class="knot" cx="0" cy="6" r="2.6"/>'
    return shape


def glyph(kind: str, x: float, y: float) -> str:
    """Return the mark of a kind: each has a form of its own, besides its colour."""
    a, b, left, right = px(y - 5), px(y + 5), px(x - 4), px(x + 4)
    if kind == "hit":
        return f'<rect class="hit" x="{px(x - 0.9)}" y="{a}" width="1.8" height="10"/>'
    if kind == "stale_hit":
        return f'<path class="stale_hit" d="M{px(x)} {a}L{right} {b}H{left}Z"/>'
    if kind == "drop":
        return f'<circle class="drop" cx="{px(x)}" cy="{px(y)}" r="3.4"/>'
    if kind == "put":
        return f'<path class="put" d="M{px(x)} {a}L{right} {px(y)}L{px(x)} {b}L{left} {px(y)}Z"/>'
    return cross(x, y, 4)


def px(number: float) -> str:
    """Return pixels as they are written, to a tenth."""
    text = f"{number:.1f}"
    return text[:-2] if text.endswith(".0") else text


def cross(x: float, y: float, r: float) -> str:
    """Return a cross, which marks what went wrong."""
    a, b, c, d = px(x - r), px(x + r), px(y - r), px(y + r)
    return f'<path class="trouble" d="M{a} {c}L{b} {d}M{a} {d}L{b} {c}"/>'


def open_edge(x: float, y: float, height: float, way: int) -> str:
    """Return the edge of a bar whose begin or end is not in the recording."""
    other, down = px(x + 4 * way), f"{px(y)}V{px(y + height)}"
    return f'<path class="open" d="M{px(x)} {down}M{other} {down}"/>'
