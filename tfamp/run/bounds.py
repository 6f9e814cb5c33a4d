"""How large and how small a number may be, told before anything slow begins."""

from __future__ import annotations

# A loss scale is a float32, and so is what a gradient is divided by: at least the smallest normal
# number, and with room for one doubling below infinity.
SMALLEST_LOSS_SCALE = 2.0**-126
LOSS_SCALE_LIMIT = 2.0**127  # Itself too large.

# Learning rates and their kin become float32 numbers.
SMALLEST_FLOAT32 = 2.0**-126  # Of the normal ones: what is smaller may be taken for 0.
LARGEST_FLOAT32 = (2.0 - 2.0**-23) * 2.0**127

# Two counts may be multiplied and still be an int64.
LARGEST_COUNT = 2**31 - 1

# The counts with a bound of their own, by flag.
LARGEST = {
    # NumPy takes no larger one.
    "seed": 2**32 - 1,
    # The device keeps a record of so many steps, of 40 bytes or a little more each.
    "log_every": 1_000_000,
    # The synthetic set draws 588 bytes for each.
    "num_classes": 1_000_000,
}

# Linux's NAME_MAX, in bytes.
LONGEST_RUN_NAME = 255
