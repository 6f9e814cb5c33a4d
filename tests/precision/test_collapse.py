"""What is said of a collapse, with the numbers of it, and of skips that no scale can help."""

import pytest

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
    assert "at step 12: the gradient" in text and "later" not in text
    assert (
        "at scale 0.5 (floor 0.25), after 3 skipped steps in a row (5 skipped in all, 2 of" in text
    )
    assert "'dense/kernel': it holds NaN." in text
    assert "A smaller scale cannot help" in text and "Since then" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"min_scale": None}, "at scale 0.5 (static)"),
        ({"skipped_in_a_row": 1}, "after 1 skipped step in a row"),
        ({"has_nan": False}, "it holds Inf."),
        ({"is_loss_finite": False}, "The loss itself was not finite"),
        ({"read_at": 13}, "at step 12 (read 1 step later, at 13): "),
        ({"read_at": 13}, "Since then 1 of 1 step "),
        ({"read_at": 13}, "the scale is 8 now."),
        ({"read_at": 20, "skipped_since": 3}, "(read 8 steps later, at 20)"),
        ({"read_at": 20, "skipped_since": 3}, "Since then 5 of 8 steps were applied"),
        ({"read_at": 20, "skipped_since": 7}, "Since then 1 of 8 steps were applied"),
    ],
)
def test_what_depends_on_how_it_came(values, part):
    assert part in told(**values)


def test_where_nothing_was_applied_since_nothing_is_said_of_it():
    assert "Since then" not in told(read_at=20, skipped_since=8)


def test_what_a_script_is_told_once():
    assert collapse.skipped_non_finite_loss(2, 30).startswith("2 of 30 steps so far were skipped")
    assert "averages of block/norm, norm took" in collapse.broken_averages(("block/norm", "norm"))
