"""What is said of a collapse, with the numbers of it, and of skips that no scale can help."""

import pytest

from tests.messages import says
from tfamp.precision import collapse

AT = {
    "step": 12,
    "read_at": 12,
    "scale": 0.5,
    "min_scale": 0.25,
    "skipped_in_a_row": 3,
    "skipped_total": 5,
    "skipped_non_finite_loss": 2,
    "skipped_since": 0,
    "scale_now": 8.0,
    "variable": "dense/kernel",
    "has_nan": True,
    "is_loss_finite": True,
}


def told(**values):
    return str(collapse.LossScaleCollapse(**(AT | values)))


def test_the_numbers_of_a_collapse():
    error = collapse.LossScaleCollapse(**AT)
    for name in ("step", "read_at", "variable", "has_nan", "is_loss_finite"):
        assert getattr(error, name) == AT[name]
    text = str(error)
    assert says(text, "step 12", "gradient", "scale 0.5 (floor 0.25)")
    assert says(text, "3 skipped steps in a row", "5 skipped in all", 2)
    assert says(text, "'dense/kernel'", "NaN")
    assert "smaller scale" in text and "later" not in text and "Since then" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"min_scale": None}, ("scale 0.5 (static)",)),
        ({"skipped_in_a_row": 1}, ("1 skipped step in a row",)),
        ({"has_nan": False}, ("'dense/kernel'", "Inf")),
        ({"is_loss_finite": False}, ("loss itself", "not finite")),
        ({"read_at": 13}, ("step 12", "1 step later", 13)),
        ({"read_at": 13}, ("Since then", "1 of 1 step", "scale is 8")),
        ({"read_at": 20, "skipped_since": 3}, ("8 steps later", 20)),
        ({"read_at": 20, "skipped_since": 3}, ("Since then", "5 of 8 steps")),
        ({"read_at": 20, "skipped_since": 7}, ("Since then", "1 of 8 steps")),
    ],
)
def test_what_depends_on_how_it_came(values, parts):
    assert says(told(**values), *parts)


def test_where_nothing_was_applied_since_nothing_is_said_of_it():
    assert "Since then" not in told(read_at=20, skipped_since=8)


def test_what_a_script_is_told_once():
    assert says(collapse.skipped_non_finite_loss(2, 30), "2 of 30 steps", "skipped", "loss")
    averages = collapse.broken_averages(("block/norm", "norm"))
    assert says(averages, "moving averages", "block/norm, norm", "kept_moving_averages")
