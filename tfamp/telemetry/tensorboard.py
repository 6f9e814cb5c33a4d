"""The run in TensorBoard: event files, the HParams session, the layout that opens on the point.

TensorBoard lists every folder with an event file as a run. A run of tfamp has two, `train/` and
`validation/`, and nothing above them, which would be listed as a run without a single chart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar_summary
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tfamp.run import records
from tfamp.run.belongings import EVENT_SUFFIX

_SCALARS = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
)

# Tags that only TensorBoard has. Its custom scalars have no logarithmic axis, on which halvings
# and doublings are steps of one height; and the HParams tab reads the figures of the folder alone
# that holds the session.
LOG2_SCALE = "scale/log2"
HPARAMS_ACCURACY = "hparams/validation_accuracy"

# What the HParams tab compares runs by, and whether it is among the five columns that are shown
# until others are ticked: TensorBoard takes those that are said to differ, by their names.
_HPARAMS = {
    "policy": True,
    "loss_scale": True,
    "model": True,
    "learning_rate": True,
    "batch_size": True,
    "dataset": False,
    "loop": False,
    "seed": False,
}

# Charts of the custom-scalars tab: title, and the tags in it as regular expressions; of several
# optimizers each one's tag.
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
            ("Loss scale, as a power of two (log2)", (LOG2_SCALE,)),
            ("Skipped steps", (records.SKIPPED_TOTAL, records.SKIPPED_NON_FINITE_LOSS)),
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
        self._writer = EventFileWriter(str(folder), flush_secs=5, filename_suffix=EVENT_SUFFIX)

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


class RunEvents:
    """Both event files of one run: figures, and what the tabs of TensorBoard open on.

    Args:
        run_directory: The run's folder.
        hparams: The values of `experiment`'s choices; the run is compared in the HParams tab
            where they are given.
    """

    def __init__(
        self, run_directory: Path, hparams: Mapping[str, str | int | float] | None = None
    ) -> None:
        self._train = ScalarWriter(run_directory / "train")
        self._validation = ScalarWriter(run_directory / "validation")
        self._train.write_summary(layout())
        if hparams is not None:
            self._train.write_summary(experiment())
            self._train.write_summary(session_start(hparams, run_directory.name))

    def write_step(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes the figures of one step."""
        # Of several optimizers each scale's name ends in the optimizer's.
        logarithms = {
            LOG2_SCALE + name.removeprefix(records.SCALE): math.log2(value)
            for name, value in row.items()
            if name.startswith(records.SCALE) and 0.0 < value < math.inf
        }
        self._train.write(step, {**row, **logarithms})

    def write_epoch(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes the figures of one epoch.

        Training figures are there step by step; two values at one step would be a zigzag.
        """
        validation = {n: v for n, v in row.items() if n.startswith("validation/")}
        train = {n: v for n, v in row.items() if not n.startswith(("validation/", "train/"))}
        if records.VALIDATION_ACCURACY in row:
            train[HPARAMS_ACCURACY] = row[records.VALIDATION_ACCURACY]
        for writer, values in ((self._train, train), (self._validation, validation)):
            writer.write(step, values)
            writer.flush()

    def close(self) -> None:
        """Flushes and closes both files."""
        self._train.close()
        self._validation.close()


def layout() -> Summary:
    """The custom-scalars layout: accuracy, loss scale, step time and memory on one page."""
    categories = []
    for title, charts in _CHARTS:
        drawn = [
            layout_pb2.Chart(
                title=name,
                multiline=layout_pb2.MultilineChartContent(tag=[f"^{tag}(/.+)?$" for tag in tags]),
            )
            for name, tags in charts
        ]
        categories.append(layout_pb2.Category(title=title, chart=drawn))
    return custom_scalar_summary.pb(layout_pb2.Layout(category=categories))


def experiment() -> Summary:
    """What the HParams tab compares: the choices, and the figures they are judged by."""
    metrics = (
        (HPARAMS_ACCURACY, "Validation accuracy"),
        (records.STEP_TIME, "Step time (ms)"),
        (records.DEVICE_PEAK, "Device memory peak (bytes)"),
    )
    summary = hparams_summary.hparams_config_pb(
        hparams=[hparams_summary.HParam(name) for name in _HPARAMS],
        metrics=[hparams_summary.Metric(tag, display_name=name) for tag, name in metrics],
    )
    (value,) = summary.value
    found = hparams_metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)
    for info in found.hparam_infos:
        info.differs = _HPARAMS[info.name]
    content = HParamsPluginData(experiment=found, version=hparams_metadata.PLUGIN_DATA_VERSION)
    value.metadata.plugin_data.content = content.SerializeToString()
    return summary


def session_start(hparams: Mapping[str, str | int | float], name: str) -> Summary:
    """The HParams session of one run: a value for each choice of `experiment`."""
    return hparams_summary.hparams_pb(dict(hparams), trial_id=name)
