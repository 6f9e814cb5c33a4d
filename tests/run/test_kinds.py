"""Kinds of values that have no setting of the trainer's: what is typed, and what is refused."""

import pytest

from tests.messages import says
from tfamp.run.errors import InputError, as_flag
from tfamp.run.kinds import Exponents, Names
from tfamp.run.ranges import whole

EXPONENTS = Exponents(whole(-10, 30))
NAMES = Names("colour", ("red", "green", "blue"))


@pytest.mark.parametrize("value", [(0, 24), (-4, -1), (3, 3)])
def test_exponents_are_read_as_they_are_written(value):
    text = f"{value[0]}:{value[1]}"
    assert EXPONENTS.write(value) == text
    assert EXPONENTS.read(text) == value
    EXPONENTS.check("scales", value)


@pytest.mark.parametrize("text", ["", "3", "0:", ":4", "0:1:2", "a:b", "0:2.5", "0-24", "0,24"])
def test_what_is_no_range_of_exponents(text):
    with pytest.raises(ValueError, match="A:B"):
        EXPONENTS.read(text)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ((5, 2), ("--scales=5:2", 5, "above", 2, "--scales=2:5")),
        ((-11, 2), ("--scales=-11:2", "-11", "from -10 to 30")),
        ((0, 31), ("--scales=0:31", 31, "from -10 to 30")),
    ],
)
def test_exponents_that_are_refused(value, told):
    with pytest.raises(InputError) as raised:
        EXPONENTS.check("scales", value)
    assert says(raised.value.told(as_flag), *told)


def test_names():
    assert NAMES.read("blue, red") == ("blue", "red")
    assert NAMES.write(("blue", "red")) == "blue,red"
    NAMES.check("colours", ("blue", "red"))
    for value, told in (
        (("reed",), ("colour 'reed'", "'red'", "--colours", "red, green, blue")),
        (("",), ("colour ''", "--colours", "red, green, blue")),
        (("red", "blue", "red"), ("--colours=red,blue,red", "red", "twice")),
    ):
        with pytest.raises(InputError) as raised:
            NAMES.check("colours", value)
        assert says(raised.value.told(as_flag), *told)
