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

from tfamp.precision.underflow_counts import FIRST_EXPONENT
from tfamp.precision.underflow_found import Measured
from tfamp.run import records
from tfamp.run.belongings import EVENT_SUFFIX
from tfamp.run.config import HPARAMS
from tfamp.telemetry import summaries

_SCALARS = SummaryMetadata(
    plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
)

# A tag that only TensorBoard has: its HParams tab reads the figures of the folder alone that holds
# the session.
HPARAMS_ACCURACY = "hparams/validation_accuracy"

# Of the underflow meter, before a layer's name.
LOST_BY_LAYER = "underflow_by_layer/"
EXPONENTS_BY_LAYER = "gradient_exponents/"
_EXPONENTS = (
    "Entries of the gradient by floor(log2 of their size), the loss scale divided out. Zeros are "
    "left out; the first and the last bin have all beyond them."
)


class ScalarWriter:
    """Writes scalars of one TensorBoard run; a thread of TensorBoard's own does the disk work.

    Args:
        folder: The folder that is the run's name in TensorBoard.
        suffix: How the file's name ends, which says whose it is.
    """

    def __init__(self, folder: Path, suffix: str = EVENT_SUFFIX) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder), flush_secs=5, filename_suffix=suffix)

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

    def write_summary(self, summary: Any, step: int = 0) -> None:
        """Writes a summary protobuf that TensorBoard's helpers, or `summaries`, made."""
        # They return TensorFlow's Summary class, the writer wants its own.
        own = Summary.FromString(summary.SerializeToString())
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=own))

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
        self._train.write(step, {**row, **_logarithms(row)})

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

    def write_underflow(self, step: int, measured: Measured) -> None:
        """Writes each layer's share of lost gradient entries, and its gradient's exponents."""
        layers = measured.layers.items()
        fractions = {name: each.lost_fraction for name, each in layers}
        self._train.write(step, {LOST_BY_LAYER + name: each for name, each in fractions.items()})
        for name, each in layers:
            tag = EXPONENTS_BY_LAYER + name
            self._train.write_summary(
                summaries.exponents(tag, FIRST_EXPONENT, each.exponents, _EXPONENTS), step
            )

    def close(self) -> None:
        """Flushes and closes both files."""
        self._train.close()
        self._validation.close()


def _logarithms(row: Mapping[str, Any]) -> dict[str, float]:
    # Of several optimizers each figure's name ends in the optimizer's.
    return {
        figure.log2_tag + name.removeprefix(figure): math.log2(value)
        for figure in records.FIGURES
        if figure.log2_tag
        for name, value in row.items()
        if name.startswith(figure) and 0.0 < value < math.inf
    }


def layout() -> Summary:
    """The custom-scalars layout: accuracy, loss scale, step time and memory on one page."""
    headings: dict[str, dict[str, list[str]]] = {}
    for figure in records.FIGURES:
        if figure.chart:
            heading, chart = figure.chart
            tags = headings.setdefault(heading, {}).setdefault(chart, [])
            # Of several optimizers each one's tag.
            tags.append(f"^{figure.log2_tag or figure}(/.+)?$")
    categories = []
    for heading, charts in headings.items():
        drawn = [
            layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
            for title, tags in charts.items()
        ]
        categories.append(layout_pb2.Category(title=heading, chart=drawn))
    return custom_scalar_summary.pb(layout_pb2.Layout(category=categories))


def experiment() -> Summary:
    """What the HParams tab compares: the choices, and the figures they are judged by."""
    metrics = (
        (HPARAMS_ACCURACY, "Validation accuracy"),
        (records.STEP_TIME, "Step time (ms)"),
        (records.DEVICE_PEAK, "Device memory peak (bytes)"),
    )
    summary = hparams_summary.hparams_config_pb(
        hparams=[hparams_summary.HParam(name) for name in HPARAMS],
        metrics=[hparams_summary.Metric(tag, display_name=name) for tag, name in metrics],
    )
    (value,) = summary.value
    found = hparams_metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)
    for info in found.hparam_infos:
        # Five columns are shown until others are ticked: TensorBoard takes those that are said to
        # differ, by their names.
        info.differs = HPARAMS[info.name] == "shown"
    content = HParamsPluginData(experiment=found, version=hparams_metadata.PLUGIN_DATA_VERSION)
    value.metadata.plugin_data.content = content.SerializeToString()
    return summary


def session_start(hparams: Mapping[str, str | int | float], name: str) -> Summary:
    """The HParams session of one run: a value for each choice of `experiment`."""
    return hparams_summary.hparams_pb(dict(hparams), trial_id=name)
