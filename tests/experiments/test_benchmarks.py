"""The benchmarks' command lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("benchmark", "arguments", "expected"),
    [
        ("overhead", "--rounds=1", "flag --rounds=1: it must be 2 or more"),
        ("overhead", "--steps=7", "flag --steps=7: it must be a multiple of 10, from 10"),
        ("overhead", "--batch_size=0", "flag --batch_size=0: it must be 1 or more"),
        ("overhead", "--policies=float61", "Unknown policy 'float61'. Did you mean 'float16'?"),
        ("overhead", "--out=/absent/x.json", "--out=/absent/x.json: give a JSON file in a folder"),
        ("loss_scaling", "--rounds=1", "flag --rounds=1: it must be 2 or more"),
        ("loss_scaling", "--clip_global_norm=0", "flag --clip_global_norm=0.0: it must be above 0"),
        ("loss_scaling", "more", "Unexpected argument 'more': every option is a --flag=value."),
    ],
)
def test_bad_input_is_one_message(benchmark, arguments, expected):
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "benchmarks" / f"{benchmark}.py", arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    message, help_line = done.stderr.splitlines()
    assert message.startswith(f"tfamp: {expected}")
    assert help_line == "Run with --help to see every flag."
