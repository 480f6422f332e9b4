"""Decorated functions, loaders and what is bound to an instance are themselves, and nothing else."""

import pytest

from singleflight import single_flight_ttl


def fetch(symbol="ASML"):
    return [symbol]


async def afetch(symbol="ASML"):
    return [symbol]


def fetch_all(symbols):
    return dict.fromkeys(symbols, 1.0)


async def afetch_all(symbols):
    return dict.fromkeys(symbols, 1.0)


def decorated(function):
    return single_flight_ttl(ttl=1)(function), single_flight_ttl(ttl=3600)(function)


def loaders(function):
    single = single_flight_ttl(ttl=1)(fetch)
    return single.bulk(function), single.bulk(max_batch=3)(function)


KINDS = {
    "plain": (decorated, fetch),
    "coroutine": (decorated, afetch),
    "loader": (loaders, fetch_all),
    "coroutine loader": (loaders, afetch_all),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_decoration_is_its_own(kind):
    """Two of one function differ from each other and from it, in comparisons, sets and dictionaries."""
    make, function = KINDS[kind]
    one, other = make(function)
    assert one == one
    assert not one != one  # noqa: SIM202
    for left, right in [(one, other), (one, function), (function, one), (other, one.__wrapped__)]:
        assert left != right
        assert not left == right  # noqa: SIM201
    assert len({one, other, function, one}) == 3
    assert {one: "one"}.get(other) is None
    assert {one: "one"}[one] == "one"


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_removes_the_right_one(kind):
    """`remove`, `index` and `in` find a decorated function, not the function that it wraps."""
    make, function = KINDS[kind]
    one, other = make(function)
    listed = [function, other, one]
    assert listed.index(one) == 2
    listed.remove(one)
    assert [function, other] == listed
    assert listed[0] is function
    assert one not in listed


def test_a_twin_is_not_its_first():
    """Twins share everything but being one function."""
    first = single_flight_ttl(ttl=60)(fetch)
    twin = first.twin(fetch)
    assert first != twin
    assert len({first, twin, fetch}) == 3


class Account:
    @single_flight_ttl(ttl=60)
    def one(self, symbol):
        return symbol

    @single_flight_ttl(ttl=60)
    def other(self, symbol):
        return symbol

    alias = one

    @one.bulk
    def many(self, symbols):
        return dict.fromkeys(symbols, 1)

    @one.bulk
    def more(self, symbols):
        return dict.fromkeys(symbols, 1)

    @single_flight_ttl(ttl=60)
    @classmethod
    def of(cls, symbol):
        return symbol

    @single_flight_ttl(ttl=60)
    @classmethod
    def at(cls, symbol):
        return symbol

    @of.bulk
    @classmethod
    def of_many(cls, symbols):
        return dict.fromkeys(symbols, 1)

    def __eq__(self, _other):
        return True

    def __hash__(self):
        return 1


@pytest.mark.parametrize(
    ("one", "other"), [("one", "other"), ("many", "more"), ("one", "many"), ("of", "at"), ("of", "of_many")]
)
def test_bound_methods_compare_by_function_and_instance(one, other):
    """The same method of the same instance is equal; another method of it, or of an equal one, is not."""
    account, equal = Account(), Account()
    assert getattr(account, one) == getattr(account, one)
    assert hash(getattr(account, one)) == hash(getattr(account, one))
    assert getattr(account, one) != getattr(account, other)
    assert not getattr(account, one) == getattr(account, other)  # noqa: SIM201
    if not one.startswith("of"):
        assert getattr(account, one) != getattr(equal, one)
    assert len({getattr(account, one), getattr(account, other), getattr(account, one)}) == 2
    assert getattr(account, one) != getattr(account, one).__wrapped__
    assert account.alias == account.one


def test_loaders_of_a_class_compare_by_class():
    """A class method's loader is the same on the class and its instances, and another on a subclass."""

    class Margin(Account):
        pass

    assert Account.of_many == Account().of_many
    assert hash(Account.of_many) == hash(Account().of_many)
    assert Account.of_many != Margin.of_many
