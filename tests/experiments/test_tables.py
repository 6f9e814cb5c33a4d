"""How pages write numbers and tables."""

import pytest

from experiments.tables import share, table, two_to_the


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.9996, "100 %"), (0.9994, "99.9 %"), (0.3127, "31.3 %"),
        (0.00488, "0.49 %"), (0.0000381, "0.0038 %"), (2.5e-6, "1 in 400,000"),
    ],
)  # fmt: skip
def test_a_share_has_two_digits_that_say_something(value, text):
    assert share(value) == text


def test_a_power_of_two():
    assert (two_to_the(-24), two_to_the(15), two_to_the(0)) == ("2⁻²⁴", "2¹⁵", "2⁰")


def test_a_table_stands_on_lines_of_its_own():
    assert table(("a", "b"), [("x", "1")]) == "\n| a | b |\n| --- | ---: |\n| x | 1 |\n"
