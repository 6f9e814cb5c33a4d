"""fidelity.json: what is written comes back, and what `show` says of it."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from tests.messages import says
from tfamp.run.fidelity import (
    Advice,
    ErrorBudget,
    Fidelity,
    Histogram,
    LayerFidelity,
    Point,
    RankedLayer,
    Window,
)
from tfamp.run.schema import RecordError


def point(precision, log2_scale=None, error=0.5):
    return Point(
        precision=precision, log2_scale=log2_scale, relative_error=error, cosine=None,
        underflow_fraction=0.25, subnormal_fraction=0.125, non_finite_fraction=0.0,
    )  # fmt: skip


WINDOW = Window(log2_min=-3, log2_max=7, is_open=True)
FIDELITY = Fidelity(
    model="net", dataset=None, device="CPU:0 (a processor)", jit_compile=False, training=True,
    batch_size=8, num_batches=2, seed=3, command_line=None, versions={"tfamp": "1"},
    reference="float64",
    precisions=(point("float32", error=1e-7), point("mixed_float16", -2, error=None)),
    layers=(
        LayerFidelity(
            path="net/dense", computes_in="float16", points=(point("mixed_float16", 4),),
            activation_points=(), window=WINDOW,
            weight_exponents=Histogram(first=-30, counts=(1, 0, 4), zeros=2),
            output_log2_size=-0.5, gradient_log2_size=-math.inf,
        ),
    ),
    window=None, why="net/a needs 2^9 and net/b overflows above 2^3",
    error_budget=ErrorBudget(
        forward=0.1, backward=0.01, underflow_at_scale_1=None, best_log2_scale=-1, num_examples=8,
        layers=tuple(
            RankedLayer(path=f"net/layer{i}", relative_error=0.1, removed=0.5 - 0.1 * i)
            for i in range(7)
        ),
    ),
    advice=Advice(
        static_scale=16.0, initial_scale=None, expected_skips=7, float32_layers=("net/b",),
        flags=("--float32_layers=^net/b$",), summary="Set float32 for net/b.",
    ),
    limits=("layers were ranked on 8 examples.",),
)  # fmt: skip


def test_fidelity_comes_back_as_it_was_written():
    text = json.dumps(FIDELITY.to_json(), allow_nan=False)
    assert Fidelity.from_json(json.loads(text)) == FIDELITY


def test_a_point_of_another_form_is_named_by_its_place():
    value = FIDELITY.to_json()
    value["precisions"][1]["underflow_fraction"] = None
    with pytest.raises(RecordError) as raised:
        Fidelity.from_json(value)
    assert says(str(raised.value), "precisions.1.underflow_fraction=None")


def test_what_is_shown(capsys):
    FIDELITY.show()
    shown = capsys.readouterr().out
    assert says(shown, "net", "float64", "2 batches of 8", "CPU:0 (a processor)")
    assert says(shown, "float32", "1.00e-07", "25.0000%", "12.5000%", "0.0000%")
    assert says(shown, "mixed_float16", "2^-2", "-")
    assert says(shown, "none: net/a needs 2^9", "1.00e-01 from the way forward", "2^-1")
    assert says(shown, "50.0% goes with net/layer0", "net/layer4", "2 more layers")
    assert "net/layer5" not in shown
    assert says(shown, "Set float32 for net/b.", "'--float32_layers=^net/b$'", "8 examples")


def test_what_was_not_asked_for_is_not_shown(capsys):
    dataclasses.replace(FIDELITY, error_budget=None, advice=None, window=WINDOW, limits=()).show()
    shown = capsys.readouterr().out
    assert says(shown, "window", "2^-3 to 2^7, the largest that was tried")
    assert "advice" not in shown and "way forward" not in shown


@pytest.mark.parametrize("is_open", [False, True])
def test_which_scales_a_window_holds(is_open):
    window = Window(log2_min=-2, log2_max=10, is_open=is_open)
    assert window.holds(0.25, 1.0, 1024.0)
    assert window.is_below(0.2499) and not window.is_below(0.25)
    # What lies above the largest scale that was tried is not known to be outside.
    assert window.is_above(1024.5) is not is_open
    assert window.holds(1.0, 2048.0) is is_open
    assert not window.holds(0.125, 1.0)
