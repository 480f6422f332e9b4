"""What a cell's words come to, as a mark: so that a table can be read at a glance.

The marks judge what the callers saw, by one rule for all libraries; `RULES` is the whole of it.
"""

from __future__ import annotations

import re
from html import escape

FULL, HALF, EMPTY, NONE = "full", "half", "empty", "none"
SIGNS = {FULL: "●", HALF: "◐", EMPTY: "○", NONE: "\N{EN DASH}"}

# By the name of a case, without its colour: what a full mark says.
WISHES = {
    "cold": "one call for 10 callers of a cold key",
    "other_key": "callers of another key do not wait",
    "expired": "one call when the value has expired",
    "slow": "one call also if it takes 3 seconds",
    "idle": "waiting takes no processor time",
    "both_colours": "one call for a thread and a task",
    "failing": "a failing function is not called for each",
    "after_failure": "a failure is forgotten",
    "traceback": "a shared exception does not grow",
    "nothing": "`None` is fetched once",
    "follower_cancelled": "cancelling one caller harms no other",
    "all_cancelled": "the work ends with its last caller",
    "second_loop": "values outlive their event loop",
    "invalidated": "what is invalidated in flight is not stored",
    "newcomer": "who asks after that gets the new value",
    "spelling": '`price("ASML")` is `price(symbol="ASML")`',
    "mutable": "a caller's changes stay its own",
    "let_go": "expired values are let go",
    "two_instances": "each instance has its own values",
    "kept_alive": "no instance is kept alive",
    "reused_id": "no value of a dead instance is served",
}

# The first that fits the beginning of a cell; a case before the colon has words of its own.
RULES: list[tuple[str, str]] = [
    (r".*: n/a", NONE),
    (r".*traceback: not shared", NONE),
    (r".*: 1 call, \d+ get CancelledError", EMPTY),
    (r".*: 1 call", FULL),
    (r".*both_colours: 2 calls", EMPTY),
    (r".*: 2 calls", HALF),
    (r".*: \d+ calls (in turn|at once)", EMPTY),
    (r".*other_key: is not held up", FULL),
    (r".*other_key: waits", EMPTY),
    (r".*idle: next to nothing", FULL),
    (r".*idle: ", EMPTY),
    (r".*after_failure: calls again", FULL),
    (r".*after_failure: is given", EMPTY),
    (r".*traceback: does not grow", FULL),
    (r".*traceback: grows", EMPTY),
    (r".*all_cancelled: ends too", FULL),
    (r".*all_cancelled: ", EMPTY),
    (r".*second_loop: found", FULL),
    (r".*second_loop: called again", HALF),
    (r".*second_loop: ", EMPTY),
    (r".*invalidated: not stored", FULL),
    (r".*invalidated: stored", EMPTY),
    (r".*newcomer: the new value", FULL),
    (r".*newcomer: the old value", EMPTY),
    (r".*spelling: are one call", FULL),
    (r".*spelling: are two calls", EMPTY),
    (r".*mutable: do not see it", FULL),
    (r".*mutable: see it", EMPTY),
    (r".*(let_go|kept_alive): let go", FULL),
    (r".*(let_go|kept_alive): kept", EMPTY),
    (r".*reused_id: no id was used again", NONE),
    (r".*(two_instances|reused_id): its own value", FULL),
    (r".*(two_instances|reused_id): ", EMPTY),
]


def wish_of(case: str) -> str:
    """Return what a full mark says of this case."""
    return WISHES[case.partition(".")[2]]


def mark_of(case: str, cell: str) -> str:
    """Return what the mark of a cell is; raise LookupError for words that no rule knows."""
    for rule, mark in RULES:
        if re.match(rule, f"{case}: {cell}"):
            return mark
    raise LookupError(f"no rule of marks.py knows this cell of {case}: {cell}")


def sign(case: str, cell: str) -> str:
    """Return the mark as HTML, with the words for whoever points at it, taps it, or has it read out."""
    mark, words = mark_of(case, cell), escape(cell, quote=True)
    attributes = f'class="mark {mark}" role="img" tabindex="0" title="{words}" aria-label="{words}"'
    return f"<span {attributes}>{SIGNS[mark]}</span>"
