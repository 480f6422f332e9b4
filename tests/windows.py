"""Stands in for what decides about windows, in tests of the steps of those who drive calls in them."""

from types import SimpleNamespace

from singleflight.locks.latch import Latch

HOW = ("A",), {}
PART = "group", "A"


class Refused(Exception):
    pass


class Windows:
    """Stands in for a `Gathering` and its one window, and notes what the driver does with them."""

    run = "run"
    gathers = True

    def __init__(self, opener=None):
        self.opener, self.steps, self.full = opener, [], Latch()
        self.window, self.opened, self.begins = self, True, True
        self.outcomes, self.skipped, self.fails = {}, [], None

    def part(self, arguments):
        assert arguments is HOW
        return PART if self.gathers else None

    def enter(self, *given):
        self.steps.append(("enter", *given))
        self.fail()
        return self.window

    def enter_renewal(self, *given):
        self.steps.append(("renew", *given))
        return self.window, self.opened

    def begin(self, window, call):
        self.steps.append(("begin", window, call))
        return self.begins

    def leave(self, *given):
        self.steps.append(("leave", *given))
        self.fail()

    def settle(self, *given):
        raise AssertionError

    def fail(self):
        if self.fails is not None:
            raise self.fails

    def take(self, flight):
        return "taken", flight

    def left(self):
        return 7.5

    def send_off(self):
        self.steps.append("send off")

    def error_of(self, flight):
        return self.outcomes.get(flight)

    def skips(self, call):
        return call.flight in self.skipped

    def is_unshared(self, flight):
        return "alone", flight

    def has_outcome(self, flight):
        return flight in self.outcomes

    def forget(self, flight):
        self.steps.append(("forget", flight))


def cache_of(windows):
    return SimpleNamespace(gathering=windows, store=SimpleNamespace(find=lambda key: ("found", key)))


def note_steps(monkeypatch, driver, windows, **steps):
    """Have a driver's own steps noted where one is looked at alone: by name, with what each is to return."""
    for name, outcome in steps.items():

        def step(*given, name=name, outcome=outcome):
            windows.steps.append((name.strip("_"), *given))
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(driver, name, step)
