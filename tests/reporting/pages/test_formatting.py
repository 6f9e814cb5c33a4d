"""Numbers as a reader can use them."""

import pytest

from tfamp.reporting.pages import formatting


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (1234.5, formatting.rounded, "1,234"),
        (101.96, formatting.rounded, "102.0"),
        (9.876, formatting.rounded, "9.88"),
        (0.01234, formatting.rounded, "0.0123"),
        (0.0, formatting.rounded, "0"),
        (2**27, formatting.mebibytes, "128.0"),
        (51317.4 * 2**20, formatting.mebibytes, "51,317"),
        (0.81, formatting.percent, "81.00"),
        (3e-6, formatting.percent, "0.0003"),
        (-0.0012, formatting.points, "-0.12"),
        (0.0123, formatting.ratio, "0.0123"),
        (32768.0, formatting.scale, "32768 (2¹⁵)"),
        (2.0**-3, formatting.scale, "0.125 (2⁻³)"),
        (1000.0, formatting.scale, "1000"),
        (0.0, formatting.scale, "0"),
        ("Infinity", formatting.scale, "infinite"),
        ("NaN", formatting.percent, "NaN"),
        (None, formatting.percent, formatting.DASH),
        (True, formatting.percent, formatting.DASH),
    ],
)
def test_numbers_are_rounded_to_what_a_reader_can_use(value, form, shown):
    assert formatting.text(value, form) == shown


def test_the_ends_of_an_interval_have_the_means_places():
    estimate = {"value": 102.0, "low": 97.0317, "high": 106.968}
    assert formatting.estimate(estimate, formatting.rounded, " ms") == ("102.0 ms", "97.0 to 107.0")
