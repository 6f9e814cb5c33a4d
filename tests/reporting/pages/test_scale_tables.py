"""The tables of loss scales and gradients, made of documents by hand."""

from __future__ import annotations

import pytest

from tests.messages import says
from tfamp.reporting.pages import formatting, scale_tables

SCALE = {
    "mode": "dynamic",
    "initial": 2.0**16,
    "settled": 2.0**15,
    "final": 2.0**14,
    "growths": 3,
    "skipped": 2,
    "first_overflow_step": 4,
    "steps": 1200,
    "skipped_non_finite_loss": None,
    "collapsed_at": None,
}
GRADIENTS = {
    "has_trained": True,
    "first_loss": 2.30259,
    "last_loss": 0.5,
    "non_finite_steps": 0,
    "first_non_finite_step": None,
    "zero_share": 0.25,
    "non_finite_share": 0.0,
    "steps": 1200,
}


def variant(label, *runs, loss_scale="dynamic"):
    return {"label": label, "precision": {"loss_scale": loss_scale}, "runs": list(runs)}


def run(seed, loss_scale=None, gradients=None):
    return {"seed": seed, "loss_scale": loss_scale, "gradients": gradients}


def rows(table):
    """Texts of each row, with what stands beneath them."""
    return [
        (name, *(f"{cell.text} ({cell.small})" if cell.small else cell.text for cell in row))
        for name, row in table.rows
    ]


def test_what_a_scale_did():
    group = {"variants": [variant("float32", run(0)), variant("float16", run(3, SCALE))]}
    table = scale_tables.scales(group)
    assert table.header == (
        *("Variant", "Seeds", "Mode", "Initial", "Settled", "Final"),
        *("Growths", "Skipped steps", "First skip"),
    )
    assert rows(table) == [
        (
            *("float16", "3", "dynamic", "65536 (2¹⁶)", "32768 (2¹⁵)", "16384 (2¹⁴)"),
            *("3", "2 of 1,200", "step 4"),
        )
    ]


def test_what_one_run_alone_recorded_has_a_column():
    counted = SCALE | {"skipped_non_finite_loss": 1}
    collapsed = SCALE | {"collapsed_at": 9}
    group = {"variants": [variant("a", run(0, SCALE), run(1, counted), run(2, collapsed))]}
    table = scale_tables.scales(group)
    assert table.header[-3:] == ("With a bad loss", "First skip", "Collapsed")
    assert [row[-3:] for row in rows(table)] == [
        (formatting.DASH, "step 4", formatting.DASH),
        ("1", "step 4", formatting.DASH),
        (formatting.DASH, "step 4", "step 9"),
    ]


def test_a_scale_that_was_chosen_stands_beside_its_window():
    def chosen(below, above, window=(3, 12)):
        window = (
            {"log2_min": window[0], "log2_max": window[1], "is_open": False} if window else None
        )
        return SCALE | {"window": window, "steps_below": below, "steps_above": above}

    runs = [run(0, SCALE), run(1, chosen(0, 0)), run(2, chosen(1200, 7)), run(3, chosen(0, 9))]
    table = scale_tables.scales({"variants": [variant("a", *runs, run(4, chosen(None, None, ())))]})
    assert table.header[-2:] == ("Safe window", "Steps outside")
    assert says(table.caption, "--loss_scale=auto")
    assert [row[-2:] for row in rows(table)] == [
        (formatting.DASH, formatting.DASH),
        ("2^3 to 2^12", "none"),
        ("2^3 to 2^12", "1,200 below, 7 above"),
        ("2^3 to 2^12", "9 above"),
        (formatting.DASH, formatting.DASH),
    ]
    assert "auto" not in scale_tables.scales({"variants": [variant("a", run(0, SCALE))]}).caption


def test_seeds_that_agree_share_a_row_and_variants_never():
    other = SCALE | {"final": 2.0**13}
    runs = [run(0, SCALE), run(1, other), run(2, SCALE), run(None, other)]
    group = {"variants": [variant("a", *runs), variant("b", run(0, SCALE))]}
    found = [row[:2] for row in rows(scale_tables.scales(group))]
    assert found == [("a", "0, 2"), ("a", "1, not set"), ("b", "0")]


def test_where_nothing_was_scaled_there_is_no_table():
    group = {"variants": [variant("float32", run(0), loss_scale=None)]}
    assert scale_tables.scales(group) is None
    assert scale_tables.gradients(group) is None
    assert scale_tables.gradient_sentences(group) == []


@pytest.mark.parametrize(
    ("loss_scale", "told"), [("none", "none"), ("1024", "1024"), (None, formatting.DASH)]
)
def test_what_became_of_gradients(loss_scale, told):
    broken = GRADIENTS | {
        "has_trained": False,
        "last_loss": "NaN",
        "non_finite_steps": 1100,
        "first_non_finite_step": 101,
        "zero_share": None,
        "non_finite_share": "NaN",
    }
    group = {
        "variants": [
            variant("a", run(0, gradients=GRADIENTS), run(1, gradients=broken),
                    loss_scale=loss_scale)
        ]
    }  # fmt: skip
    assert rows(scale_tables.gradients(group)) == [
        ("a", "0", told, "yes", "2.303", "0.5", "0 of 1,200", "25.00 %", "0.00 %"),
        (
            *("a", "1", told, "no", "2.303", "NaN", "1,100 of 1,200 (first at step 101)"),
            *(formatting.DASH, "NaN"),
        ),
    ]


def test_a_variant_without_scaling_is_told_beside_those_that_scaled():
    failed = GRADIENTS | {"has_trained": False, "non_finite_steps": 600, "zero_share": 0.75}
    group = {
        "variants": [
            variant("float32", run(0), loss_scale=None),
            variant("plain", run(0, gradients=GRADIENTS), run(1, gradients=failed)),
            variant("scaled", run(0, SCALE, GRADIENTS), run(1, SCALE, GRADIENTS)),
            variant("uncounted", run(0, SCALE, GRADIENTS | {"zero_share": None})),
        ]
    }
    (sentence,) = scale_tables.gradient_sentences(group)
    assert says(sentence, "plain", "1 of 2 runs", "600 of 2,400 steps", "non-finite")
    assert says(sentence, "50.00 %", "zero", "25.00 %", "scaled")


def test_a_variant_alone_is_told_alone():
    runs = [run(0, gradients=GRADIENTS | {"zero_share": None})]
    (sentence,) = scale_tables.gradient_sentences({"variants": [variant("a", *runs)]})
    assert says(sentence, "a", "1 of 1 runs", "0 of 1,200 steps", "non-finite")
    assert "%" not in sentence
