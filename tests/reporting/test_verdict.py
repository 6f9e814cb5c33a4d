"""The three sentences, word for word."""

import math

import pytest
from made_runs import rewrite, write_run

from tests.messages import says
from tfamp.reporting import comparison, runs, verdict
from tfamp.reporting.estimates import Estimate


def sentences(logdir):
    found, _ = runs.find(logdir, logdir / "report")
    (group,) = comparison.compare(found, "float32").groups
    return verdict.sentences(group.variants[1], group)


def write_pairs(logdir, seeds, mixed_ms, accuracies, **values):
    for seed in range(seeds):
        write_run(logdir, policy="float32", seed=seed, step_ms=100.0, accuracy=0.8, peak=400)
        write_run(logdir, policy="mixed_bfloat16", seed=seed, step_ms=mixed_ms[seed],
                  accuracy=accuracies[seed], **({"peak": 100} | values))  # fmt: skip


def test_a_clear_gain(tmp_path):
    write_pairs(tmp_path, 3, [50.0, 51.0, 49.0], [0.8, 0.801, 0.799])
    speed, memory, accuracy = sentences(tmp_path)
    assert says(speed, "Speed: mixed_bfloat16", "2.00 times", "float32")
    assert says(speed, "95% interval 1.90 to 2.10", "3 seeds", "faster.")
    assert says(memory, "Memory: mixed_bfloat16", "0.25 times", "float32", "CPU:0")
    assert says(memory, "95% interval 0.25 to 0.25", "3 seeds", "smaller.")
    assert says(accuracy, "Accuracy: mixed_bfloat16", "float32", "+0.00 points")
    assert says(accuracy, "95% interval -0.25 to +0.25", "3 seeds", "within noise.")


def test_one_seed_proves_nothing(tmp_path):
    write_pairs(tmp_path, 1, [50.0], [0.7], peak=400)
    speed, memory, accuracy = sentences(tmp_path)
    only_one = ("seed 0 only", "no interval", "may be noise")
    assert says(speed, "Speed: mixed_bfloat16", "2.00 times", "float32", *only_one)
    assert says(memory, "Memory: mixed_bfloat16", "1.00 times", "float32", "CPU:0", *only_one)
    assert says(accuracy, "Accuracy: mixed_bfloat16", "float32", "-10.00 points", *only_one)


def test_what_was_not_measured_is_said(tmp_path):
    write_pairs(tmp_path, 2, [50.0, 50.0], [0.8, 0.8], peak=None)
    said = sentences(tmp_path)[1]
    assert says(said, "Memory: mixed_bfloat16", "float32", "no device peak", "nothing")


def test_an_accuracy_that_was_not_measured_or_is_not_finite_is_said(tmp_path):
    write_pairs(tmp_path / "nan", 2, [50.0, 50.0], [math.nan, 0.8])
    said = sentences(tmp_path / "nan")[2]
    assert says(said, "Accuracy: mixed_bfloat16", "float32", "+nan points", "no interval")
    assert says(said, "not finite", "nothing")
    write_pairs(tmp_path / "none", 1, [50.0], [0.8])
    for folder in (tmp_path / "none").iterdir():
        rewrite(folder / "result.json", validation_accuracy=None)
    said = sentences(tmp_path / "none")[2]
    assert says(said, "Accuracy: mixed_bfloat16", "float32", "no validation accuracy", "nothing")


def test_the_baseline_has_none(tmp_path):
    write_pairs(tmp_path, 1, [50.0], [0.8])
    found, _ = runs.find(tmp_path, tmp_path / "report")
    (group,) = comparison.compare(found, "float32").groups
    assert verdict.sentences(group.variants[0], group) is None


@pytest.mark.parametrize(
    ("estimate", "speed", "memory"),
    [
        (Estimate(1.5, 1.2, 1.9, 3), "faster", "larger"),
        (Estimate(0.5, 0.4, 0.7, 3), "slower", "smaller"),
        (Estimate(1.1, 0.9, 1.3, 3), "within noise", "within noise"),
        (Estimate(1.1, 1.0, 1.3, 3), "within noise", "within noise"),
        (Estimate(0.9, 0.8, 1.0, 3), "within noise", "within noise"),
        (Estimate(1.0, 1.0, 1.0, 3), "the same", "the same"),
        (Estimate(1.04, 1.03, 1.045, 3), "slightly faster", "slightly larger"),
        (Estimate(0.99, 0.985, 0.995, 3), "slightly slower", "slightly smaller"),
        (Estimate(1.05, 1.02, 1.08, 3), "faster", "larger"),
        (Estimate(1 / 1.05, 0.92, 0.98, 3), "slower", "smaller"),
        (Estimate(1.04, 0.9, 1.2, 3), "within noise", "within noise"),
        (Estimate(1.5, None, None, 1), "unknown", "unknown"),
        (Estimate(math.nan, None, None, 3), "unknown", "unknown"),
    ],
)
def test_judgement_of_ratios(estimate, speed, memory):
    assert verdict.speed(estimate) == speed
    assert verdict.memory(estimate) == memory


@pytest.mark.parametrize(
    ("estimate", "accuracy"),
    [
        (Estimate(0.01, 0.001, 0.02, 3), "higher"),
        (Estimate(-0.01, -0.02, -0.001, 3), "lower"),
        (Estimate(0.0009, 0.0001, 0.0017, 3), "slightly higher"),
        (Estimate(-0.0009, -0.0017, -0.0001, 3), "slightly lower"),
        (Estimate(-0.001, -0.0017, -0.0003, 3), "lower"),
        (Estimate(0.01, -0.01, 0.03, 3), "within noise"),
        (Estimate(0.0, 0.0, 0.0, 3), "the same"),
        (Estimate(0.01, None, None, 1), "unknown"),
    ],
)
def test_judgement_of_differences(estimate, accuracy):
    assert verdict.accuracy(estimate) == accuracy


@pytest.mark.parametrize("word", ["faster", "slower", "smaller", "larger", "higher", "lower"])
def test_a_small_effect_has_no_colour(word):
    assert verdict.tone(word) == ("good" if word in ("faster", "smaller", "higher") else "bad")
    assert verdict.tone(f"{verdict.SLIGHTLY}{word}") == "neutral"


def test_what_another_compiler_ran_is_compared_in_accuracy_alone(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path, policy="float32", jit_compile=False, seed=seed, accuracy=0.8)
        write_run(tmp_path, policy="mixed_float16", seed=seed, accuracy=0.7, step_ms=10.0)
    speed, memory, accuracy = sentences(tmp_path)
    unlike = ("mixed_float16 with XLA", "not compared", "float32", "without XLA")
    assert says(speed, "Speed:", *unlike) and says(memory, "Memory:", *unlike)
    assert says(accuracy, "Accuracy: mixed_float16 with XLA", "float32", "-10.00 points")
    assert says(accuracy, "95% interval -10.00 to -10.00", "3 seeds", "lower.")
