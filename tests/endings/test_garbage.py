"""What a call raised goes with it: no cycle of frames keeps it, and what its frames hold."""

import pytest

from .leftover_errors import COLOURS, FORMS, WAYS, left_of, made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("colour", COLOURS)
def test_nothing_is_left_of_an_exception(colour, form, way):
    """Whatever raised it; of one that is stored, the copy that callers receive."""
    call = made(colour, form, way)
    assert left_of(call, colour == "tasks") == (2 if form == "bulk" else 1) * (way == "stored")
