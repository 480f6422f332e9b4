"""Recordings written by hand: notes of events as they might have been told, without running anything."""

from singleflight.timeline.lanes import Source, chart_of
from singleflight.timeline.notes import KEPT, Lane, Note

FIRST = 100
"""Flights with a lower number began before the recording."""

_DEFAULTS = {
    "age": 0.0,
    "error": None,
    "followers": 1,
    "counted": None,
    "leads": False,
    "flight": "call",
    "background": False,
    "stored": True,
    "ttl": 60.0,
    "retried": False,
    "flight_id": 0,
    "waited": 0.0,
    "cycle": "'A' -> 'B' -> 'A'",
    "leader": "web-2:17:main",
    "reason": "refused",
    "lasted": 1.0,
}


class Script:
    """Notes of one function in the order of their sequence numbers; `say` adds one."""

    def __init__(self):
        self.notes, self.lanes, self.actors = [], [], []

    def say(self, kind, at, who="main", key="A", **detail):
        """An event of this kind, told at this time by this thread or task."""
        if kind in ("began", "ended"):
            kept = detail
        else:
            kept = {name: detail.pop(name, _DEFAULTS.get(name)) for name in KEPT[kind]}
            assert not detail, detail
            if kind == "fetch" and kept["execution_id"] is None:
                kept["execution_id"] = kept["flight_id"]
        lane = -1 if key is None else _place(self.lanes, key)
        actor = _place(self.actors, who)
        self.notes.append(Note(0, kind, len(self.notes) + 1, at, lane, actor, kept))
        return self

    def source(self, ended=10.0, notes=None, **options):
        lanes = [Lane(0, repr(key), key) for key in self.lanes]
        notes = self.notes if notes is None else notes
        return Source(notes, ["price"], lanes, self.actors, 0.0, ended, FIRST, **options)

    def chart(self, ended=10.0, **options):
        return chart_of(self.source(ended, **options))

    def lane(self, key="A", ended=10.0):
        """What is drawn of one key."""
        (function,) = self.chart(ended).functions
        return next(lane for lane in function.lanes if lane.label == key)


def _place(values, value):
    if value not in values:
        values.append(value)
    return values.index(value)


def times(bars):
    """What each bar is, from when to when, and how it ended; what is open has an ellipsis."""
    return [
        (
            bar.what,
            ... if bar.began_before else bar.start,
            ... if bar.goes_on else bar.end,
            bar.how,
        )
        for bar in bars
    ]
