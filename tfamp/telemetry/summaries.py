"""What TensorBoard shows besides scalars, as event files hold it: histograms, images, texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata as histograms
from tensorboard.plugins.image import metadata as images
from tensorboard.plugins.text import summary_v2 as texts
from tensorboard.util import tensor_util

# A PNG's header: 16 bytes of signature and chunk name, then width and height.
_PNG, _SIZE = b"\x89PNG\r\n\x1a\n", slice(16, 24)


def exponents(tag: str, first: int, counts: Sequence[int], description: str = "") -> Summary:
    """A histogram of how many numbers have which exponent; its axis is log2 of their size.

    Args:
        tag: Its name in TensorBoard.
        first: The exponent, floor(log2 |x|), of the first count.
        counts: Numbers by exponent, upwards: the k-th are from 2^(first + k) to below twice that.
        description: What TensorBoard tells of it, in Markdown.
    """
    left = first + np.arange(len(counts), dtype=np.float64)
    buckets = np.stack([left, left + 1, np.asarray(counts, np.float64)], axis=1)
    return _summary(tag, buckets, histograms.create_summary_metadata(None, description))


def image(tag: str, png: bytes, description: str = "") -> Summary:
    """A picture.

    Raises:
        ValueError: The bytes are no PNG.
    """
    if not png.startswith(_PNG):
        raise ValueError(f"{tag}: {png[:8]!r} begins no PNG; read the bytes of a .png file.")
    width, height = np.frombuffer(png[_SIZE], ">u4")
    # In this order, as the image plugin reads them: its size as text, and pictures after it.
    parts = np.array([str(width).encode(), str(height).encode(), png], dtype=np.object_)
    return _summary(tag, parts, images.create_summary_metadata(None, description))


def text(tag: str, markdown: str) -> Summary:
    """A text in Markdown."""
    return Summary.FromString(texts.text_pb(tag, markdown).SerializeToString())


def _summary(tag: str, values: np.ndarray, metadata: Any) -> Summary:
    found = Summary()
    value = found.value.add(tag=tag)
    # TensorBoard's helpers make TensorFlow's protobufs where TensorFlow is there.
    value.metadata.ParseFromString(metadata.SerializeToString())
    value.tensor.ParseFromString(tensor_util.make_tensor_proto(values).SerializeToString())
    return found
