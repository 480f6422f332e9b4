"""What a drawing says: names of kinds, durations, and the words that a shape tells when it is pointed at."""

from __future__ import annotations

import re
from html import escape

from .lanes import Bar, Chart, KeyLane, Mark

__all__ = [
    "BAD",
    "BARS",
    "LEGEND",
    "counts_of",
    "duration",
    "plural",
    "safe",
    "shortened",
    "summary_line",
    "told_of_bar",
    "told_of_marks",
    "written_on",
]

LEGEND = (
    ("call", "a call: the function runs"),
    ("wait", "a caller waits for it"),
    ("renewal", "a renewal in the background"),
    ("bulk", "one loader call, over its keys"),
    ("shared", "waits for another process"),
    ("tracked", "a call without the decorator"),
    ("failed", "ended with an error"),
    ("degraded", "the store's server is away"),
    ("hit", "hit"),
    ("stale_hit", "stale value served"),
    ("drop", "dropped, evicted or expired"),
    ("put", "put, claimed or adopted"),
    ("trouble", "failed, timed out, cancelled, deadlock or lost key"),
)
"""What each kind of shape means, in words."""

_WORDS = {
    "hit": "hit",
    "stale_hit": "stale value served",
    "stored_failure": "stored exception raised",
    "invalidate": "invalidated",
    "evict": "evicted: the store was full",
    "expire": "expired entry removed",
    "put": "value put",
    "claimed": "claimed: this process calls for all",
    "adopted": "adopted from the server",
    "refused": "not stored: the lease had ended",
    "lease_lost": "the lease ended during the call",
    "unseat": "lost its key: it took too long",
    "left": "a caller was cancelled or interrupted",
    "timeout": "a caller timed out",
    "deadlock": "deadlock",
    "failed": "failed without a call",
    "abort": "ended without a call",
    "gap": "messages may have been lost",
}
BARS = {
    "call": "call",
    "refresh": "refresh",
    "renewal": "renewal in the background",
    "bulk": "loader call",
    "wait": "wait",
    "shared": "waits for another process",
    "tracked": "call without the decorator",
    "degraded": "the server is not asked",
}
_SHORT = {"tracked": "call", "bulk": "loader"}
BAD = frozenset(("failed", "aborted", "timed out", "deadlock", "left"))
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def safe(text: object) -> str:
    """Return a text that may stand in HTML and XML, in elements and in quoted attributes.

    >>> safe('<script>"&' + chr(0))
    '&lt;script&gt;&quot;&amp;\\ufffd'
    """
    return escape(_NOT_XML.sub("\ufffd", str(text)), quote=True)


def duration(seconds: float) -> str:
    """Return a duration in words that are short.

    >>> duration(0.2034), duration(0.00042), duration(75), duration(3600), duration(0.9999)
    ('203 ms', '0.42 ms', '75 s', '3,600 s', '1 s')
    """
    if seconds >= 99.95:
        return f"{seconds:,.0f} s"
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{seconds * 1000:.3g} ms"


def plural(number: int, what: str) -> str:
    """Return a number with its noun.

    >>> plural(1, "call"), plural(2000, "key")
    ('1 call', '2,000 keys')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def summary_line(chart: Chart) -> str:
    """Return what a chart amounts to, in one line."""
    totals = chart.totals
    if totals.tracked and not totals.callers:
        return plural(totals.tracked, "call")
    return f"{plural(totals.callers, 'caller')}, {plural(totals.calls, 'call')}"


def told_of_bar(bar: Bar, number: int, origin: float) -> str:
    """Return what a bar tells, or the first of a `number` that are drawn as one; times are since `origin`."""
    what = BARS[bar.what]
    if number > 1:
        how = bar.how or "not over"
        return f"{number:,} times: {what} ({how})\nthe first at {duration(bar.start - origin)}"
    lines = [f"{what}, {duration(bar.lasted)}" + (f": {bar.how}" if bar.how else "")]
    if bar.told:
        lines.append(f"leader: {bar.told}" if bar.what == "shared" else bar.told)
    if bar.actor:
        lines.append(f"by {bar.actor}")
    if bar.what != "wait" and bar.waiters:
        lines.append(f"{plural(bar.waiters, 'caller')} waited for it")
    if bar.began_before:
        lines.append("it began before the recording")
    if bar.goes_on:
        lines.append("it was not over when the recording ended")
    lines.append(f"from {duration(bar.start - origin)} to {duration(bar.end - origin)}")
    return "\n".join(lines)


def told_of_marks(marks: list[Mark], origin: float) -> str:
    """Return what marks of one kind tell that are drawn as one."""
    first = marks[0]
    words, at = _WORDS.get(first.what, first.what), duration(first.at - origin)
    if len(marks) > 1:
        return f"{len(marks):,} times: {words}\nthe first at {at}"
    told = f"\n{first.told}" if first.told else ""
    by = f"\nby {first.actor}" if first.actor else ""
    return f"{words}{told}{by}\nat {at}"


def counts_of(lane: KeyLane) -> str:
    """Return what a lane has, in a few words."""
    calls = sum(bar.what in ("call", "refresh", "bulk", "tracked") for bar in lane.flights)
    renewals = sum(bar.what == "renewal" for bar in lane.flights)
    hits = sum(mark.what == "hit" for mark in lane.marks)
    stale = sum(mark.what == "stale_hit" for mark in lane.marks)
    named = [(calls, "call"), (renewals, "renewal"), (len(lane.waits), "wait"), (hits, "hit")]
    words = [plural(number, what) for number, what in named if number]
    if stale:
        words.append(f"{stale:,} stale")
    return " · ".join(words)


def written_on(bar: Bar, width: float) -> str:
    """Return what is written on a bar of this width, as far as there is room."""
    lasted = duration(bar.lasted)
    if bar.how in BAD:
        choice = [f"{bar.how}: {bar.told}"] if bar.told else []
        choice.append(bar.how)
    elif bar.what == "shared":
        choice = [f"another process calls, {lasted}", lasted]
    else:
        choice = [f"{_SHORT.get(bar.what, bar.what)} {lasted}", lasted]
    for words in choice:
        if 6.0 * len(words) + 8 <= width:
            return words
    return ""
