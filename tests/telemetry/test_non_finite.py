"""What was not finite, from the rows alone."""

import math

import keras
import numpy as np
import pytest

import tfamp
from tests.messages import says
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.run import records
from tfamp.run.result import NonFinite
from tfamp.telemetry.non_finite import NonFiniteWatch

NAN, INF = math.nan, math.inf


@pytest.fixture
def said():
    return []


@pytest.fixture
def watch(said):
    return NonFiniteWatch(said.append)


def row(loss=1.0, norm=1.0, skipped=None, ending=""):
    made = {records.TRAIN_LOSS: loss, records.GRADIENT_NORM + ending: norm}
    made |= {} if skipped is None else {records.SKIPPED_IN_A_ROW + ending: skipped}
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # A scale that is being found skips steps whose losses are finite: no fault.
        ([row(), row(norm=INF, skipped=1), row(norm=NAN, skipped=2)], None),
        ([row(), row(loss=None, norm=None), {}], None),
        ([row(), row(loss=NAN, norm=NAN, skipped=1), row(skipped=0)], (2, "loss", 1)),
        ([row(loss=INF), row(loss=-INF)], (1, "loss", 2)),
        # Applied: of a run that scales nothing, or one where the step was none of the skips.
        ([row(), row(norm=INF), row(loss=NAN, norm=NAN)], (2, "gradient", 2)),
        ([row(norm=INF, skipped=0)], (1, "gradient", 1)),
        # A group's microbatch has a loss and no gradient yet.
        ([row(), row(loss=NAN, norm=None)], (2, "loss", 1)),
        # Of two optimizers, each with its own skips.
        ([row(norm=INF, ending="/generator") | row(skipped=1)], (1, "gradient", 1)),
        ([row() | row(norm=INF, skipped=3, ending="/generator")], None),
    ],
)
def test_the_first_fault_and_how_many(rows, expected, watch, said):
    for step, each in enumerate(rows, start=1):
        watch.see(step, 0, each)
    if expected is None:
        assert watch.found.result() is None and said == []
    else:
        first, what, steps = expected
        expected = NonFinite(first_step=first, what=what, steps=steps, weight=None)
        assert watch.found.result() == expected
        (line,) = said
        assert line.startswith(f"Step {first}: the {what} is ")


def test_the_words_name_value_skip_and_what_to_look_at(watch, said):
    watch.see(1, 0, row(loss=NAN, skipped=1))
    assert says(said[0], "Step 1", "loss is NaN", "skipped", "Look for NaN")
    later = NonFiniteWatch(said.append)
    later.see(7, 0, row(norm=INF))
    assert says(said[1], "Step 7", "gradient is infinite", "learning rate")
    assert "skipped" not in said[1]


def test_only_the_last_epochs_losses_decide(watch):
    for step, (epoch, loss) in enumerate([(0, 1.0), (1, NAN), (1, 2.0)], start=1):
        watch.see(step, epoch, row(loss=loss))
    assert watch.verdict(3, 3) is None
    watch.see(4, 2, row(loss=NAN))
    assert says(watch.verdict(4, 4), "last epoch", "step 2")


def test_no_applied_step_is_no_success(watch):
    watch.see(1, 0, row(norm=INF, skipped=1))
    assert watch.verdict(1, 0).startswith("No step was applied")
    # Nobody counted; or an optimizer that nothing gave a gradient.
    assert watch.verdict(1, None) is watch.verdict(0, 0) is None


def test_a_collapse_ends_the_run_or_is_said(watch, said):
    def collapses():
        raise LossScaleCollapse(step=5, read_at=6, scale=1.0, min_scale=1.0, skipped_in_a_row=2,
                                skipped_total=2, skipped_non_finite_loss=2, skipped_since=0,
                                scale_now=1.0, variable="kernel",
                                has_nan=True, is_loss_finite=False)  # fmt: skip

    with pytest.raises(LossScaleCollapse):
        watch.take_collapse(collapses)
    watch.stops = False
    watch.take_collapse(collapses)
    (line,) = said
    assert says(line, "collapsed", "step 5", "goes on")


def test_a_weight_that_broke_without_a_loss_is_found(watch):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")])
    assert watch.look_at_weights(model, 3) is None
    model.layers[0].bias.assign([0.0, INF])
    assert watch.look_at_weights(model, 4).endswith("d/bias")
    assert watch.look_at_weights(model, 5) is None  # Told of once.
    assert (watch.found.result().what, watch.found.result().first_step) == ("weight", 4)


def test_a_script_of_the_users_is_told_and_its_result_says_failed(tmp_path, capsys):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1)), loss="mse")
    inputs = np.full((8, 4), NAN, "float32")
    telemetry = tfamp.PrecisionTelemetry(tmp_path / "run", log_every=2)
    model.fit(inputs, np.ones(8), batch_size=2, verbose=0, shuffle=False, callbacks=[telemetry])
    result = telemetry.directory.result.read_text()
    assert '"status": "failed"' in result and '"error": "No step was applied' in result
    said = capsys.readouterr().err
    assert said.count("Step 1: the loss is NaN") == 1
    assert "No step was applied" in said
