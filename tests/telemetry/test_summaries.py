"""Histograms, images and texts, as TensorBoard's own reader finds them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from tfamp.telemetry import summaries, tensorboard


def png(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format="PNG")
    return file.getvalue()


def test_what_is_written_is_what_tensorboard_reads(tmp_path):
    writer = tensorboard.ScalarWriter(tmp_path, suffix=".mine.tfamp")
    picture = png(7, 300)
    writer.write_summary(summaries.exponents("sizes", -3, (5, 0, 2), "in *log2*"), step=40)
    writer.write_summary(summaries.image("picture", picture), step=40)
    writer.write_summary(summaries.text("words", "**100 %** of it"), step=40)
    writer.close()
    assert [path.name.endswith(".mine.tfamp") for path in tmp_path.iterdir()] == [True]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        (event,) = events.Tensors(tag)
        assert event.step == 40
        metadata = events.SummaryMetadata(tag)
        found[tag] = (
            metadata.plugin_data.plugin_name,
            tensor_util.make_ndarray(event.tensor_proto),
        )
    assert {tag: plugin for tag, (plugin, _) in found.items()} == {
        "sizes": "histograms",
        "picture": "images",
        "words": "text",
    }
    np.testing.assert_array_equal(found["sizes"][1], [[-3, -2, 5], [-2, -1, 0], [-1, 0, 2]])
    assert found["picture"][1].tolist() == [b"7", b"300", picture]
    assert found["words"][1].item() == b"**100 %** of it"
    assert events.SummaryMetadata("sizes").summary_description == "in *log2*"


def test_what_is_no_png_is_refused():
    with pytest.raises(ValueError, match=r"broken: b'GIF89a'"):
        summaries.image("broken", b"GIF89a")
