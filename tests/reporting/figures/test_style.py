"""How pictures look."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfamp.reporting.figures import style


def lightness(colour):
    """CIELAB's L* of `#rrggbb`, from sRGB (IEC 61966-2-1): what is left of a colour in grey."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * luminance ** (1 / 3) - 16 if luminance > 216 / 24389 else luminance * 24389 / 27


def test_styles_differ_in_grey_in_dashes_and_in_markers():
    for one, other in itertools.combinations(style.STYLES, 2):
        assert abs(lightness(one.colour) - lightness(other.colour)) >= 7, (one, other)
        assert one.dashes != other.dashes and one.marker != other.marker
    # The first four, which most reports have, differ by far more.
    first = sorted(lightness(entry.colour) for entry in style.STYLES[:4])
    assert min(np.diff(first)) > 15
    # A contrast of 3 to white, as WCAG 2.1 asks of graphics, is a lightness of 61.7 or less.
    assert max(lightness(entry.colour) for entry in style.STYLES) <= 62.5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mixed_float16", "mixed_float16"),
        ("a\nb\x1b[31m", "a?b?[31m"),
        ("_hidden", " _hidden"),
        ("层", "?"),
        ("x" * 50, "x" * 21 + "..." + "x" * 20),
    ],
)
def test_texts_from_disk_are_made_fit(text, shown):
    assert style.shown(text) == shown
