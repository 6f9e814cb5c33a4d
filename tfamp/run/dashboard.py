"""The run in TensorBoard: event files, the HParams session, the layout that opens on the point."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar_summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tfamp.run import records

_SCALARS = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
)

# Charts of the custom-scalars tab: title, and the tags in it as regular expressions.
_CHARTS = (
    (
        "Did it learn",
        (
            ("Accuracy", (records.VALIDATION_ACCURACY, records.TRAIN_ACCURACY)),
            ("Loss", (records.VALIDATION_LOSS, records.TRAIN_LOSS)),
        ),
    ),
    (
        "What loss scaling did",
        (
            ("Loss scale", (records.SCALE,)),
            ("Skipped steps", (records.SKIPPED_TOTAL,)),
            ("Gradient norm, unscaled", (records.GRADIENT_NORM,)),
            ("Share of zero gradients", (records.GRADIENT_ZEROS,)),
        ),
    ),
    (
        "What it cost",
        (
            ("Step time (ms)", (records.STEP_TIME,)),
            ("Device memory peak (bytes)", (records.DEVICE_PEAK,)),
            ("Examples per second", (records.THROUGHPUT,)),
        ),
    ),
)


class ScalarWriter:
    """Writes scalars of one TensorBoard run; a thread of TensorBoard's own does the disk work.

    Args:
        folder: The folder that is the run's name in TensorBoard.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder), flush_secs=5)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes all numbers of a row as one event; other values are left out."""
        summary = Summary()
        for tag, value in values.items():
            if isinstance(value, (int, float)):
                entry = summary.value.add(tag=tag, metadata=_SCALARS)
                entry.tensor.dtype = 1  # DT_FLOAT
                entry.tensor.float_val.append(float(value))
        if summary.value:
            self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def write_summary(self, summary: Any) -> None:
        """Writes a summary protobuf that TensorBoard's helpers made, at step 0."""
        # They return TensorFlow's Summary class, the writer wants its own.
        own = Summary.FromString(summary.SerializeToString())
        self._writer.add_event(Event(wall_time=time.time(), summary=own))

    def flush(self) -> None:
        """Hands all events to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        self._writer.close()


def layout() -> Summary:
    """The custom-scalars layout: accuracy, loss scale, step time and memory on one page."""
    categories = []
    for title, charts in _CHARTS:
        drawn = [
            layout_pb2.Chart(
                title=name,
                multiline=layout_pb2.MultilineChartContent(tag=[f"^{tag}$" for tag in tags]),
            )
            for name, tags in charts
        ]
        categories.append(layout_pb2.Category(title=title, chart=drawn))
    return custom_scalar_summary.pb(layout_pb2.Layout(category=categories))


def experiment() -> Summary:
    """What the HParams tab compares: the choices, and the figures they are judged by."""
    metrics = (
        (records.VALIDATION_ACCURACY, "validation", "Validation accuracy"),
        (records.STEP_TIME, "train", "Step time (ms)"),
        (records.DEVICE_PEAK, "train", "Device memory peak (bytes)"),
    )
    return hparams_summary.hparams_config_pb(
        hparams=[
            hparams_summary.HParam("policy"),
            hparams_summary.HParam("loss_scale"),
            hparams_summary.HParam("model"),
            hparams_summary.HParam("dataset"),
            hparams_summary.HParam("loop"),
            hparams_summary.HParam("seed"),
        ],
        metrics=[
            hparams_summary.Metric(tag, group=group, display_name=name)
            for tag, group, name in metrics
        ],
    )


def session_start(hparams: Mapping[str, str | int], name: str) -> Summary:
    """The HParams session of one run: a value for each choice of `experiment`."""
    return hparams_summary.hparams_pb(dict(hparams), trial_id=name)
