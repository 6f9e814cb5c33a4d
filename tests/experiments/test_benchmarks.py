"""The benchmarks' command lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.messages import says

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("benchmark", "arguments", "expected"),
    [
        ("overhead", "--rounds=1", ("--rounds=1", 2)),
        ("overhead", "--steps=7", ("--steps=7", "multiple of 10")),
        ("overhead", "--batch_size=0", ("--batch_size=0", 1)),
        ("overhead", "--policies=float61", ("'float61'", "'float16'")),
        ("underflow", "--every=0", ("--every=0", 1)),
        ("overhead", "--out=/absent/x.json", ("--out=/absent/x.json", "JSON")),
        ("scaler_overhead", "--rounds=1", ("--rounds=1", 2)),
        ("scaler_overhead", "--clip_global_norm=0", ("--clip_global_norm=0.0", "above 0")),
        ("scaler_overhead", "more", ("Unexpected", "'more'", "--flag=value")),
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
    assert message.startswith("tfamp: ") and says(message, *expected)
    assert says(help_line, "--help")
