"""The page of a timeline: one HTML file that needs nothing else, and no script."""

from __future__ import annotations

from collections.abc import Mapping

from .drawing import Drawing
from .lanes import Chart, Function, Totals
from .notes import RECEIVED
from .shapes import HATCH, STYLE, swatch
from .words import duration, plural, safe

__all__ = ["page_of"]

_WIDE, _NARROW = 1080, 380
_LISTED = 200  # functions in the table

_STYLE = """
:root{color-scheme:light dark}*{box-sizing:border-box}
body{margin:0;background:#fff;color:#1c2430;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 48px}h1{font-size:22px;line-height:1.25;margin:0 0 2px;
overflow-wrap:anywhere}
h2{font-size:15px;margin:28px 0 8px}.dim{color:#5b6675}p.dim{margin:0}p.small{font-size:12.5px;margin-top:6px}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:18px 0}.tile{flex:1 1 118px;max-width:212px;
border:1px solid #d9dee6;
border-radius:8px;padding:9px 13px}.tile b{display:block;font-size:21px;line-height:1.25;
font-variant-numeric:tabular-nums}.tile span{font-size:12.5px;color:#5b6675}.tile.main{border-color:#0b6bcb;
box-shadow:inset 3px 0 0 #0b6bcb}
.legend{display:flex;flex-wrap:wrap;gap:5px 20px;margin:14px 0;padding:0;list-style:none;font-size:13px}
.legend li{display:flex;align-items:center;gap:8px}.legend svg{flex:none;overflow:visible}
.drawing{border:1px solid #d9dee6;border-radius:8px;padding:6px 0;overflow:hidden}
.drawing svg{display:block;width:100%;height:auto}.narrow{display:none}
@media(max-width:760px){main{padding:16px 12px 32px}.wide{display:none}.narrow{display:block}
.tile{flex:1 1 40%;max-width:none}}
.notes{margin:12px 0;padding:10px 14px;border-left:3px solid #b7791f;background:#fdf6e8;font-size:13.5px}
.notes p{margin:0}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;width:100%}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid #d9dee6;font-variant-numeric:tabular-nums;
white-space:nowrap}th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;
min-width:14em}th{font-weight:600;color:#5b6675}
@media(prefers-color-scheme:dark){body{background:#0f141b;color:#e6eaf0}.dim,.tile span,th{color:#9aa7b6}
.tile,.drawing,th,td{border-color:#2c3542}.tile.main{border-color:#4c9df0;box-shadow:inset 3px 0 0 #4c9df0}
.notes{background:#2a2213;border-color:#e0a94a}}
"""


def page_of(parts: Mapping[str, Chart], title: str, footer: str = "") -> str:
    """Return the page with these charts, by name; an empty name is not written."""
    wide, narrow = Drawing(parts, _WIDE), Drawing(parts, _NARROW)
    drawings = wide.svg(title=title), narrow.svg(title=title)
    charts = list(parts.values())
    legend = "".join(
        f'<li><svg class="sf" width="18" height="12" viewBox="0 0 18 12" aria-hidden="true">'
        f"{swatch(kind)}</svg>{safe(words)}</li>"
        for kind, words in wide.used()
    )
    tiles = "".join(_tiles(name, chart) for name, chart in parts.items())
    below = "".join(f'<p class="dim small">{safe(text)}</p>' for text in wide.said)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="'
        "default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{safe(title)}</title><style>{_STYLE}{STYLE}</style></head>\n<body><main>\n"
        f'<h1>{safe(title)}</h1><p class="dim">{safe(_described(charts))}</p>\n{tiles}\n'
        f'<ul class="legend" aria-label="Legend">{legend}</ul>\n{_notes(charts)}'
        f'<svg width="0" height="0" style="position:absolute" aria-hidden="true">{HATCH}</svg>'
        f'<div class="drawing wide">{drawings[0]}</div>\n<div class="drawing narrow">{drawings[1]}</div>\n'
        f"{below}\n"
        f"{_table(parts)}\n"
        f'<p class="dim" style="margin-top:24px;font-size:12.5px">{safe(footer)}</p>\n</main></body></html>\n'
    )


def _described(charts: list[Chart]) -> str:
    lasted = " and ".join(duration(chart.lasted) for chart in charts)
    going = ", and goes on" if any(chart.goes_on for chart in charts) else ""
    return f"Recorded for {lasted}{going}. Each lane is one key; point at a shape to read what it is."


def _tiles(name: str, chart: Chart) -> str:
    totals = chart.totals
    heading = f"<h2>{safe(name)}</h2>" if name else ""
    tiles: list[tuple[str, str, bool]] = []
    if totals.tracked:
        tiles.append((f"{totals.tracked:,}", "calls without the decorator", not totals.callers))
    if totals.callers or not totals.tracked:
        tiles += [
            (f"{totals.callers:,}", "calls received", False),
            (f"{totals.calls:,}", "calls made", False),
            (f"{totals.saved:,}", "calls saved", True),
            (duration(totals.longest_wait), "longest wait", False),
        ]
    served = [
        (totals.hits + totals.stale_hits, "hits" if not totals.stale_hits else "hits, stale ones included"),
        (totals.errors + totals.timeouts, "callers that received an error"),
    ]
    tiles += [(f"{number:,}", words, False) for number, words in served if number]
    inside = "".join(
        f'<div class="tile{" main" if main else ""}"><b>{safe(number)}</b><span>{words}</span></div>'
        for number, words, main in tiles
    )
    return f'{heading}<div class="tiles">{inside}</div>'


def _notes(charts: list[Chart]) -> str:
    said: list[str] = []
    for chart in charts:
        dropped = sum(chart.dropped.values())
        if dropped:
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(chart.dropped.items()))
            events = plural(dropped, "later event")
            said.append(
                f"The recording was full: {events} ({kinds}) are counted in the numbers and not drawn. "
                f"Record more with record(most=...)."
            )
    if not said:
        return ""
    return f'<div class="notes">{"".join(f"<p>{safe(text)}</p>" for text in said)}</div>\n'


def _table(parts: Mapping[str, Chart]) -> str:
    heads = ["function", "received", *RECEIVED, "calls made", "saved", "longest wait"]
    rows: list[str] = []
    functions = [(name, function) for name, chart in parts.items() for function in chart.functions]
    for name, function in functions[:_LISTED]:
        rows.append(_row(f"{name}: {function.name}" if name else function.name, function))
    if len(functions) > _LISTED:
        rest = Totals()
        for _, function in functions[_LISTED:]:
            rest.add(function.totals)
        rows.append(_row(f"{len(functions) - _LISTED:,} more functions", Function("", totals=rest)))
    head = "".join(f"<th>{text.replace('_', ' ')}</th>" for text in heads)
    return (
        f'<h2>In numbers</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, function: Function) -> str:
    totals = function.totals
    cells: list[str]
    if totals.tracked and not totals.callers:
        cells = ["" for _ in (None, *RECEIVED)] + [f"{totals.tracked:,}", "", ""]
    else:
        counts = [totals.callers, *(getattr(totals, count) for count in RECEIVED), totals.calls, totals.saved]
        cells = [f"{number:,}" for number in counts] + [duration(totals.longest_wait)]
    return f"<tr><td>{safe(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
