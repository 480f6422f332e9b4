"""How a task waits for a flight and runs the function: a stand-in that looks again while others lead."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import coroutine
from typing import Any

from .boarding import JOIN, LEAD, Boarding
from .memo import Memo

__all__ = ["call"]


async def call(
    memo: Memo,
    run: Callable[..., Any],
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    renew: bool = False,
) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy."""
    if memo.direct():
        return await run(*args, **kwargs)
    boarding = Boarding(key, object(), renew)
    try:
        while memo.board(boarding) is JOIN:
            memo.leave(boarding, timed_out=None)
            await _next_turn()
        if boarding.verdict is LEAD:
            memo.tell.fetching(boarding.flight)
            value = await run(*args, **kwargs)
            memo.land(boarding.flight, value)
            return value
        return boarding.record.value
    except BaseException as error:
        memo.abandon(boarding, error)
        raise
    finally:
        memo.done(boarding)


@coroutine
def _next_turn() -> Generator[None, None, None]:
    yield
