"""A new figure of each step is declared, measured and used: nothing in between knows it."""

import keras
from plain_scripts import Left, compiled, fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

import tfamp
from tfamp.precision.history import StepHistory
from tfamp.run import records


def test_a_declared_and_measured_figure_reaches_rows_and_tensorboard(tmp_path, monkeypatch):
    declared = records.Figure(
        "update/rounded_away",
        "step that updates",
        "made up",
        column="rounded_away",
        kind="count",
        measured="updates",
        chart=("What loss scaling did", "Made up"),
        log2_tag="update/log2",
    )
    monkeypatch.setattr(records, "FIGURES", (*records.FIGURES, declared))
    write = StepHistory.write

    def measured(history, values):
        write(history, values | {"rounded_away": history.count.value + 1})

    monkeypatch.setattr(StepHistory, "write", measured)
    optimizer = tfamp.LossScaleOptimizer(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    fit(compiled(optimizer), tfamp.PrecisionTelemetry(tmp_path, log_every=3))

    # Four groups of two steps: an update is every second one.
    expected = [(2, 2), (4, 4), (6, 6), (8, 8)]
    steps = Left(tmp_path).steps
    assert [(row["step"], row[declared]) for row in steps if declared in row] == expected
    assert all(type(row.get(declared, 0)) is int for row in steps)
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0})
    events.Reload()
    drawn = [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(declared)]
    assert drawn == expected
    assert events.Tensors("update/log2")[0].step == 2
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for c in layout.category for chart in c.chart}
    assert charts["Made up"] == ["^update/log2(/.+)?$"]
