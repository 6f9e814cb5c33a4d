"""The examples under experiments/scenarios/ run and show what they say."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "experiments" / "scenarios"


@pytest.fixture
def run(capsys):
    """Runs a scenario in this process; returns what it prints."""

    def run(name):
        runpy.run_path(str(SCENARIOS / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def test_clipping_by_argument_and_by_hand_agree(run):
    norm, difference = numbers(run("clipping"))
    assert norm > 0.5 and difference < 1e-6


def test_accumulation_discards_the_bad_group_alone(run):
    out = run("accumulation")
    assert out.splitlines()[3:5] == [
        "microbatch 4: update, scale 1024",
        "microbatch 5: sum, scale 512",
    ]
    assert out.endswith("updates: 1 applied, 1 skipped\n")


def test_gradient_penalty_falls(run):
    first, last, skipped = numbers(run("gradient_penalty"))
    assert last < 0.5 * first and skipped == 0


def test_an_overflow_in_one_optimizer_leaves_the_other_alone(run):
    assert run("several_optimizers").splitlines() == [
        "first:  scale 32768, skipped 0",
        "second: scale 512, skipped 1",
    ]


@pytest.mark.slow
def test_several_devices_skip_together():
    # In a process of its own: it divides the CPU before TensorFlow computes anything.
    done = subprocess.run(
        [sys.executable, SCENARIOS / "several_devices.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "applied 3, skipped 1; weights finite: True" in done.stdout


def test_custom_gradient_learns(run):
    first, last, skipped = numbers(run("custom_gradient"))
    assert last < 0.1 * first and skipped < 10


def test_custom_train_step_learns_in_fit_and_in_a_loop(run):
    fit, loop = run("custom_train_step").splitlines()
    first, last, skipped = numbers(fit)
    assert last < 0.2 * first and skipped == 0
    last, skipped = numbers(loop)
    assert last < 0.2 * first and skipped == 0


def test_every_scenario_is_run_here():
    names = {path.stem for path in SCENARIOS.glob("*.py")}
    assert all(f"{name}" in Path(__file__).read_text(encoding="utf-8") for name in names)
    assert len(names) == 7
