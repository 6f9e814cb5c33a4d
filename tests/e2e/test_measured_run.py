"""The whole command on runs that were trained: what it finds, and that nothing else changes."""

from __future__ import annotations

import json
import shutil
import unittest.mock

import numpy as np
import pytest
from short_runs import ODD, SHORT, TINY

from tests.messages import says
from tfamp import fidelity as command
from tfamp.run.config import Config
from tfamp.run.fidelity import Fidelity
from tfamp.run.resolve import resolve
from tfamp.telemetry.callback import PrecisionTelemetry
from tfamp.training import saving, trainer
from tfamp.training.interrupt import RunInterrupted


def train(logdir, **changes):
    """A run that leaves its weights."""
    config = resolve(Config(**(SHORT | {"save_model": True, "logdir": str(logdir)} | changes)))
    with unittest.mock.patch.object(saving, "why_it_does_not_load", return_value=None):
        return trainer.train(config, say=lambda line: None)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def measured(*arguments):
    assert command.main([*arguments, "--precisions=float32,mixed_float16"]) == 0


def gradient(images, labels, kernel, bias):
    """Of softmax's cross-entropy after one product with a matrix, float64: of kernel and bias."""
    logits = images @ kernel + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    slopes = (odds / odds.sum(axis=1, keepdims=True) - labels) / len(images)
    return np.concatenate([(images.T @ slopes).ravel(), slopes.sum(axis=0)])


def test_a_run_of_which_all_is_known(tmp_path, capsys):
    """Of images that float16 rounds, and a float32 matrix, NumPy tells the gradient."""
    done = train(tmp_path, model=f"{ODD}:linear", policy="mixed_float16", batch_size=10)
    run = done.directory.path
    weights = [np.array(w.value, np.float64) for w in done.built.model.get_layer("head").weights]
    images, labels = (np.array(part, np.float64) for part in next(iter(done.built.data.train)))
    images = images.reshape(10, -1)
    true = gradient(images, labels, *weights)
    rounded = gradient(images.astype(np.float16).astype(np.float64), labels, *weights)
    expected = np.linalg.norm(rounded - true) / np.linalg.norm(true)
    before = files_of(run)
    measured(f"--run={run}", "--log2_scales=0:6")
    found = Fidelity.read(run / "fidelity" / "fidelity.json")
    assert found.batch_size == 10 and found.settled_log2_scale == 15.0
    exact, *scaled = found.precisions
    assert (exact.precision, exact.log2_scale) == ("float32", None)
    assert exact.relative_error < 1e-5 < expected
    assert [point.log2_scale for point in scaled] == list(range(7))
    assert [point.relative_error for point in scaled] == pytest.approx(7 * [expected], rel=1e-2)
    # All that it wrote is its own; what the run wrote is as it was.
    after = files_of(run)
    assert {path: after[path] for path in before} == before
    new = [path.relative_to(run).as_posix() for path in after if path not in before]
    assert all(name.startswith("fidelity/") or name.endswith(".fidelity.tfamp") for name in new)
    for name in ("fidelity.html", "fidelity.md"):
        assert f"fidelity/{name}" in new
    assert says(capsys.readouterr().out, "float64", f"{run}/fidelity/fidelity.html")


@pytest.mark.slow
def test_an_interrupted_run(tmp_path, monkeypatch):
    seen = PrecisionTelemetry.on_train_batch_end

    def stop(self, batch, logs=None):
        seen(self, batch, logs)
        if batch == 2:
            raise RunInterrupted(2)

    monkeypatch.setattr(PrecisionTelemetry, "on_train_batch_end", stop)
    with pytest.raises(RunInterrupted):
        train(tmp_path, model=TINY, policy="mixed_float16")
    (run,) = (path for path in tmp_path.iterdir())
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"
    measured(f"--run={run}", "--log2_scales=0:2")
    assert Fidelity.read(run / "fidelity" / "fidelity.json").settled_log2_scale == 15.0


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "float16", "bfloat16"])
def test_a_run_under_another_policy(policy, tmp_path, capsys):
    run = train(tmp_path, model=TINY, policy=policy).directory.path
    measured(f"--run={run}", "--log2_scales=0:2", f"--out={tmp_path}/out")
    found = Fidelity.read(tmp_path / "out" / "fidelity.json")
    assert {point.precision for point in found.precisions} == {"float32", "mixed_float16"}
    mixed = "mixed_bfloat16" if policy == "bfloat16" else "mixed_float16"
    assert says(" ".join(found.limits), policy, mixed)
    assert not (run / "fidelity").exists()


def test_a_loss_that_no_precision_saves(tmp_path, capsys):
    arguments = (f"--model={ODD}:always_nan", "--batch_size=4", f"--out={tmp_path}/out")
    assert command.main(arguments) == 2
    assert says(capsys.readouterr().err, "nan", "float64", "nan_at")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_twice_the_same(jit_compile, tmp_path):
    given = [f"--model={TINY}", "--batch_size=8", "--log2_scales=3:5", "--augment=flip_crop"]
    found = []
    for name in ("one", "two"):
        out = tmp_path / name
        measured(*given, f"--out={out}", f"--{'' if jit_compile else 'no'}jit_compile")
        found.append(json.loads((out / "fidelity.json").read_text()))
        assert found[-1].pop("command_line")
    assert found[0] == found[1]
    assert found[0]["jit_compile"] is jit_compile
    shutil.rmtree(tmp_path / "one")


def test_layers_in_float32_are_taken_out_of_16_bits(tmp_path):
    arguments = (f"--model={TINY}", "--batch_size=4", "--log2_scales=0:1", f"--out={tmp_path}")
    measured(*arguments, "--float32_layers=conv")
    computes_in = {
        layer.path.rpartition("/")[2]: layer.computes_in
        for layer in Fidelity.read(tmp_path / "fidelity.json").layers
    }
    assert computes_in["conv1"] == computes_in["conv2"] == "float32"
    assert computes_in["relu1"] == "float16"
    assert np.all([name in computes_in for name in ("norm1", "head")])
