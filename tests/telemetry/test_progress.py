"""The progress on a real terminal of any width, and in a pipe."""

from __future__ import annotations

import fcntl
import math
import os
import struct
import sys
import termios
import types

import pytest

from tfamp.run import records
from tfamp.telemetry import progress

ROW = {
    records.TRAIN_LOSS: 1.20551,
    records.TRAIN_ACCURACY: 0.5843,
    records.SCALE: 2.0**15,
    records.SKIPPED_TOTAL: 12,
    records.STEP_TIME: 146.7,
}
EPOCH = {
    records.TRAIN_LOSS: 1.1,
    records.TRAIN_ACCURACY: 0.6,
    records.VALIDATION_LOSS: 1.18164,
    records.VALIDATION_ACCURACY: 0.637,
    records.EPOCH_TIME: 25.53,
}


class Terminal:
    """A pseudo-terminal whose screen is one row after another, as wide as `columns`."""

    def __init__(self, columns):
        self._master, slave = os.openpty()
        self.stream = open(slave, "w")
        self.resize(columns)
        self.rows = [""]

    def resize(self, columns):
        self.columns = columns
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, size)

    def look(self):
        """Takes in what was written; returns the rows. Fails where the terminal would wrap."""
        # What was written arrives when the kernel likes: all that is before this mark is awaited.
        self.stream.write("\0")
        self.stream.flush()
        written = ""
        while not written.endswith("\0"):
            written += os.read(self._master, 1 << 16).decode()
        written = written[:-1]
        at = 0
        for character in written.replace("\r\n", "\n"):
            if character == "\r":
                at = 0
            elif character == "\n":
                self.rows.append("")
                at = 0
            else:
                assert character.isprintable()
                row = self.rows[-1].ljust(at)
                self.rows[-1] = row[:at] + character + row[at + 1 :]
                at += 1
                assert at < self.columns, f"wraps at {self.columns} columns: {self.rows[-1]}"
        return [row.rstrip() for row in self.rows]

    def close(self):
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of a width and puts it in the place of stdout."""
    made = []

    def make(columns):
        made.append(Terminal(columns))
        monkeypatch.setattr(sys, "stdout", made[-1].stream)
        return made[-1]

    # Read no clock: every mark is drawn.
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", -1.0)
    yield make
    for one in made:
        one.close()


def bar(epochs=5, steps=78):
    telemetry = types.SimpleNamespace(last_row={}, last_epoch={})
    made = progress.ProgressBar(telemetry, epochs, steps)
    made.set_model(types.SimpleNamespace(jit_compile=True))
    return made, telemetry


def train(made, telemetry, steps):
    """What the loop does once so many steps of the epoch are done."""
    telemetry.step_of_epoch = steps
    made.on_train_batch_end(steps - 1)


def shown_at(terminal, columns):
    """What a step and an epoch's end look like."""
    screen = terminal(columns)
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 12)
    step = screen.look()[-1]
    made.on_test_begin()
    screen.look()
    telemetry.last_epoch = dict(EPOCH)
    made.on_epoch_end(0)
    epoch, after = screen.look()
    assert after == ""
    return step, epoch


@pytest.mark.parametrize(
    ("columns", "step", "epoch"),
    [
        (
            40,
            "1/5  12/78  loss 1.2055  scale 2^15",
            "1/5  25.5 s  loss 1.1000",
        ),
        (
            60,
            "Epoch 1/5  12/78  loss 1.2055  scale 2^15  skipped 12",
            "Epoch 1/5  25.5 s  loss 1.1000  val_acc 0.6370  scale 2^15",
        ),
        (
            80,
            "Epoch 1/5  12/78  loss 1.2055  scale 2^15  skipped 12  acc 0.5843  0:10 left",
            "Epoch 1/5  25.5 s  loss 1.1000  val_acc 0.6370  scale 2^15  skipped 12",
        ),
        (
            120,
            "Epoch 1/5  12/78  [====                      ]  loss 1.2055  scale 2^15  skipped 12  "
            "acc 0.5843  0:10 left  147 ms/step",
            "Epoch 1/5  25.5 s  loss 1.1000  val_acc 0.6370  scale 2^15  skipped 12  acc 0.6000  "
            "val_loss 1.1816",
        ),
    ],
)
def test_what_stands_on_the_line(terminal, columns, step, epoch):
    assert shown_at(terminal, columns) == (step, epoch)


@pytest.mark.parametrize("columns", [1, 2, 10, 20, *range(36, 204, 4)])
def test_one_line_at_any_width(terminal, columns):
    """`look` fails where a row is as wide as the terminal."""
    step, epoch = shown_at(terminal, columns)
    if columns >= 40:
        assert "loss 1.2055" in step and "loss 1.1000" in epoch
    if columns >= 80:
        assert "scale 2^15  skipped 12" in step and "scale 2^15  skipped 12" in epoch


def test_the_line_follows_a_terminal_that_is_resized(terminal):
    screen = terminal(120)
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 10)
    assert screen.look()[-1].endswith("ms/step")
    screen.resize(50)
    # A terminal cuts or reflows what stood there.
    screen.rows = [row[:49] for row in screen.rows]
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 20)
    assert screen.look() == ["1/5  20/78  loss 1.2055  scale 2^15  skipped 12"]
    screen.resize(200)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 30)
    assert screen.look()[-1].endswith("0:07 left  147 ms/step")


def test_a_shorter_line_leaves_nothing_of_a_longer_one(terminal):
    screen = terminal(80)
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 10)
    telemetry.last_row = {records.TRAIN_LOSS: 2.0}
    train(made, telemetry, 20)
    assert screen.look() == ["Epoch 1/5  20/78  [=======                     ]  loss 2.0000"]


def test_a_terminal_that_does_not_know_its_width(terminal):
    screen = terminal(0)
    screen.columns = 80
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 12)
    assert screen.look()[-1].endswith("acc 0.5843  0:10 left")


@pytest.mark.parametrize(
    ("loss", "scale", "text"),
    [
        (0.00001234, 2.0**-14, "loss 1.234e-05  scale 2^-14"),
        (1e30, 2.0**24, "loss 1e+30  scale 2^24"),
        (math.nan, 1.0, "loss nan  scale 2^0"),
        (math.inf, 1000.0, "loss inf  scale 1000"),
        (0.0, 26214.4, "loss 0.0000  scale 26214"),
    ],
)
def test_numbers_are_short(terminal, loss, scale, text):
    screen = terminal(80)
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = {records.TRAIN_LOSS: loss, records.SCALE: scale}
    train(made, telemetry, 78)
    assert text in screen.look()[-1]


def test_where_nothing_is_scaled_nothing_is_said_of_it(terminal):
    screen = terminal(80)
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = {records.TRAIN_LOSS: 1.0, records.TRAIN_ACCURACY: 0.5}
    train(made, telemetry, 78)
    assert screen.look()[-1].endswith("]  loss 1.0000  acc 0.5000")


def test_what_goes_on_takes_one_line_and_leaves_none(terminal):
    screen = terminal(30)
    with progress.Told() as tell:
        tell("float64, the reference of all that follows")
        assert screen.look() == ["float64, the reference of all"]
        tell("scale 2^3")
        assert screen.look() == ["scale 2^3"]
    print("Done.", flush=True)
    assert screen.look() == ["Done.", ""]


def test_elsewhere_what_goes_on_is_a_line_now_and_then(capsys, monkeypatch):
    with progress.Told() as tell:
        for number in range(3):
            tell(f"scale 2^{number}")
        monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
        tell("scale 2^3")
    assert capsys.readouterr().out == "  scale 2^0\n  scale 2^3\n"


def test_elsewhere_it_is_lines_with_all_figures(capsys):
    made, telemetry = bar()
    made.on_train_begin()
    made.on_epoch_begin(0)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 12)
    made.on_test_begin()
    telemetry.last_epoch = dict(EPOCH)
    made.on_epoch_end(0)
    assert capsys.readouterr().out == (
        "First step: compiling with XLA, this takes a while ...\n"
        "Epoch 1/5  25.5 s  loss 1.1000  accuracy 0.6000  val_loss 1.1816  val_accuracy 0.6370  "
        "loss_scale 32768  skipped 12\n"
    )


def test_elsewhere_a_long_epoch_has_lines_in_between(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    made, telemetry = bar()
    made.on_epoch_begin(0)
    telemetry.last_row = dict(ROW)
    train(made, telemetry, 12)
    train(made, telemetry, 13)  # The same row is no news.
    assert capsys.readouterr().out == (
        "  step 12/78  loss 1.2055  accuracy 0.5843  loss_scale 32768  skipped 12\n"
    )
