"""What cannot be shared between processes, and what another process's failure is raised as."""

from __future__ import annotations

from typing import Literal

from ..common.errors import SingleFlightError

__all__ = ["OversizedValue", "Reason", "RemoteFailure", "UnportableKey", "UnportableValue", "Unreadable"]

Reason = Literal["too large", "format", "truncated", "signature", "version", "key", "payload"]


class UnportableKey(SingleFlightError, TypeError):
    """A key means nothing in another process, so the call cannot be shared; the message names the part.

    Raised in the caller alone. Nothing was called and nothing changed.
    """


class UnportableValue(SingleFlightError, TypeError):
    """A value would not come back from the shared store as it is; the message names the part.

    Raised at decoration when the return annotation already says so, else when the value lands, in the leader
    and its followers. Nothing was stored.
    """


class OversizedValue(UnportableValue):
    """A value has more bytes than `max_value` allows to be shared."""


class RemoteFailure(SingleFlightError):
    """The call failed in another process, which told this one what went wrong.

    `type_name` is the class of the exception there, with its module, `message` its text (cut to 2000
    characters) and `process` says where it was raised. The exception itself stays there: `__cause__` is None.
    """

    type_name: str
    message: str
    process: str

    def __init__(self, type_name: str, message: str, process: str) -> None:
        super().__init__(type_name, message, process)
        self.type_name, self.message, self.process = type_name, message, process

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message} (in process {self.process})"


class Unreadable(Exception):
    """Bytes from the server are not what was asked for; they count as if there were none.

    `reason` says why, in the order in which it is looked for. Never raised in a caller of a decorated
    function.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason
