"""Whole runs are read; broken ones are named and passed over, whatever is wrong with them."""

import json
import math
import os

import pytest
from made_runs import rewrite, write_run

from tests.reporting.pages.read_pages import undrawn
from tfamp.reporting import runs
from tfamp.run import records


def find(logdir):
    found, passed_over = runs.find(logdir, logdir / "report")
    return found, {entry.directory: entry for entry in passed_over}


def the_reason(logdir):
    """Why the one run below was passed over."""
    found, passed_over = find(logdir)
    assert not found
    (entry,) = passed_over.values()
    return entry


def test_a_whole_run_is_read(tmp_path):
    write_run(tmp_path, name="whole", policy="mixed_float16", seed=7, skips=(3,))
    (run,), passed_over = find(tmp_path)
    assert not passed_over
    assert run.directory == "whole"
    assert (run.policy, run.seed) == ("mixed_float16", 7)
    assert run.figures.loss_scale.skipped == 1
    assert len(run.step_rows) == 60 and len(run.epoch_rows) == 3
    assert run.series(records.SKIPPED_TOTAL)[1:4] == [(2, 0), (3, 1), (4, 1)]
    assert run.command_line[1:] == ["--policy=mixed_float16", "--seed=7"]
    assert run.git_revision == "a" * 40


def test_runs_are_found_at_any_depth_and_in_order(tmp_path):
    for name in ("b", "a/deep/er", "a/x"):
        write_run(tmp_path, name=name)
    found, passed_over = find(tmp_path)
    assert [run.directory for run in found] == ["a/deep/er", "a/x", "b"]
    assert not passed_over


def test_runs_that_others_took_the_place_of_are_passed_over_in_silence(tmp_path):
    # Beside a run, and where a run was killed as it began.
    write_run(tmp_path, name="whole")
    for run in ("whole", "begun"):
        write_run(tmp_path / run, name="replaced-20261124T081500Z")
    (found,), passed_over = find(tmp_path)
    assert found.directory == "whole"
    assert not passed_over


def test_a_logdir_that_is_a_run_itself(tmp_path):
    folder = write_run(tmp_path, name="only")
    (run,), _ = find(folder)
    assert run.directory == "only"


def test_the_report_and_event_folders_and_files_are_no_runs(tmp_path):
    folder = write_run(tmp_path, name="whole")
    (folder / "train").mkdir()
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "report").mkdir()
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "report.json").write_text("{}")
    (tmp_path / "fidelity").mkdir()
    (tmp_path / "fidelity" / "fidelity.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sweep.json").write_text("{}")
    found, passed_over = find(tmp_path)
    assert [run.directory for run in found] == ["whole"]
    assert not passed_over


def test_non_finite_figures_come_back_as_floats(tmp_path):
    write_run(tmp_path, policy="mixed_float16", loss_scale="none", non_finite_steps=(5,))
    (run,), _ = find(tmp_path)
    assert math.isnan(run.figures.train_loss)
    assert sum(norm != norm for _, norm in run.series(records.GRADIENT_NORM)) == 1


# What is planted, and what the reason must say.


def cut_last_line(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])


def cut_last_newline(folder):
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])


def break_a_line(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[4] = '{"kind": "step", "ste\n'
    path.write_text("".join(lines))


def first_line(text):
    def write(folder):
        path = folder / "metrics.jsonl"
        path.write_text(text + "\n" + path.read_text())

    return write


def result(**changes):
    return lambda folder: rewrite(folder / "result.json", **changes)


def config(**changes):
    return lambda folder: rewrite(folder / "config.json", **changes)


def config_value(**changes):
    def write(folder):
        path = folder / "config.json"
        values = json.loads(path.read_text())
        values["config"] |= changes
        path.write_text(json.dumps(values))

    return write


FAULTS = {
    "absent result": (lambda f: (f / "result.json").unlink(), "the run did not finish"),
    "absent config": (lambda f: (f / "config.json").unlink(), "There is no config.json"),
    "absent rows": (lambda f: (f / "metrics.jsonl").unlink(), "There is no metrics.jsonl"),
    "empty rows": (lambda f: (f / "metrics.jsonl").write_text(""), "has no rows"),
    "cut last line": (cut_last_line, "ends in the middle of a line"),
    "cut last newline": (cut_last_newline, "ends in the middle of a line"),
    "broken line": (break_a_line, "metrics.jsonl, line 5 is no JSON"),
    "a row that is a list": (first_line("[1]"), "line 1 is no JSON object"),
    "a row without a step": (first_line('{"kind": "step"}'), "a row without kind and step"),
    "a figure that is a text": (
        first_line('{"kind": "step", "step": 1, "train/loss": "low"}'),
        "train/loss='low' at step 1",
    ),
    "rows in latin-1": (
        lambda f: (f / "metrics.jsonl").write_bytes(b'{"kind": "\xe9"}\n'),
        "metrics.jsonl cannot be read",
    ),
    "result is cut": (lambda f: (f / "result.json").write_text('{"sta'), "cannot be read"),
    "result is a list": (lambda f: (f / "result.json").write_text("[]"), "no JSON object"),
    "result of another schema": (result(schema_version=2), "has schema version 2"),
    "result of no schema": (result(schema_version=...), "has no schema version"),
    "config of another schema": (config(schema_version="1"), "config.json has schema version '1'"),
    "foreign config": (lambda f: (f / "config.json").write_text('{"lr": 1}'), "no schema version"),
    "drop-in config": (config(config=...), "tfamp.train did not write it"),
    "failed": (
        result(status="failed", error="LossScaleCollapse: it fell."),
        "The run ended as 'failed': LossScaleCollapse: it fell.",
    ),
    "interrupted": (result(status="interrupted"), "The run ended as 'interrupted'."),
    "no status": (result(status=...), "status=None where completed, interrupted or failed belongs"),
    "epoch times of no kind": (result(epoch_time_sec=["x"]), "epoch_time_sec=['x'] where a list"),
    "no list of epochs": (result(epoch_time_sec=None), "epoch_time_sec=None where a list"),
    "negative peak": (result(device_peak_bytes=-1), "device_peak_bytes=-1 where a number above 0"),
    "step time without p95": (result(step_time_ms={"median": 1.0}), "step_time_ms.p95=None"),
    "step time zero": (result(step_time_ms={"median": 0, "p95": 1}), "step_time_ms.median=0 where"),
    "accuracy of no kind": (result(validation_accuracy=[1]), "validation_accuracy=[1]"),
    "tf32 of no kind": (result(tf32="no"), "tf32='no' where true or false"),
    "loss scale of no kind": (result(loss_scale={"mode": "dynamic"}), "loss_scale.initial=None"),
    "seed of no kind": (config_value(seed="0"), "seed='0' where a whole number"),
    "seed that is true": (config_value(seed=True), "seed=True"),
    "layers of no kind": (config_value(float32_layers="a"), "a list of texts"),
    "config is no object": (config(config=[]), 'config.json has no "config"'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_run_is_named_with_its_fault(fault, tmp_path):
    plant, reason = FAULTS[fault]
    plant(write_run(tmp_path, name="broken"))
    entry = the_reason(tmp_path)
    assert entry.directory == "broken"
    assert reason in entry.why
    assert str(tmp_path) not in entry.why, "the reason is a sentence, no path of this machine"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_run_does_not_keep_others_out(fault, tmp_path):
    FAULTS[fault][0](write_run(tmp_path, name="broken"))
    write_run(tmp_path, name="whole")
    found, passed_over = find(tmp_path)
    assert [run.directory for run in found] == ["whole"]
    assert set(passed_over) == {"broken"}


@pytest.mark.parametrize(
    ("fault", "is_unfinished"),
    [
        ("absent result", True),
        ("failed", True),
        ("interrupted", True),
        ("cut last line", False),
        ("result of another schema", False),
    ],
)
def test_only_a_run_that_began_and_did_not_end_is_unfinished(fault, is_unfinished, tmp_path):
    FAULTS[fault][0](write_run(tmp_path, name="broken"))
    assert the_reason(tmp_path).is_unfinished == is_unfinished


def test_a_folder_without_any_run_is_named(tmp_path):
    (tmp_path / "photographs" / "empty").mkdir(parents=True)
    entry = the_reason(tmp_path)
    assert entry.directory == "photographs/empty"
    assert "holds no run" in entry.why and not entry.is_unfinished


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    entry = the_reason(tmp_path)
    assert (entry.directory, entry.why) == ("locked", "It cannot be read: Permission denied.")


def test_a_script_need_not_tell_its_data_seed_and_sizes(tmp_path):
    for policy in ("float32", "mixed_float16"):
        folder = write_run(tmp_path, name=policy, policy=policy)
        record = json.loads((folder / "config.json").read_text())
        unknown = dict.fromkeys(("dataset", "seed", "batch_size", "epochs", "model"))
        kept = {"policy", "loop", "loss_scale", "float32_layers", "jit_compile", "log_every"}
        config = {name: value for name, value in record["config"].items() if name in kept}
        rewrite(
            folder / "config.json",
            config=config | unknown,
            command_line=["/home/me/drop_in.py", policy],
        )
        rewrite(folder / "result.json", epoch_time_sec=[], step_time_ms=None)
    found, _, text = undrawn(tmp_path)
    (group,) = found["groups"]
    assert group["title"] == "a model, fit loop, with XLA"
    assert group["variants"][1]["seeds"] == [None]
    assert group["variants"][1]["figures"]["epoch_time_sec"] is None
    assert group["variants"][1]["comparison"]["accuracy_difference"]["value"] == 0.0
    assert any("a script set no seed" in warning for warning in found["warnings"])
    assert "(one pair of runs only)" in group["variants"][1]["verdict"][2]
    assert "python drop_in.py float32" in text and "not set" in text


def counted(layers, of_layers, parameters, of_parameters):
    return {
        "dtype": "float16",
        "layers": layers,
        "of_layers": of_layers,
        "parameters": parameters,
        "of_parameters": of_parameters,
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (..., None),
        ("float16 in 20 of 21 layers", None),
        (counted(20, 21, 984, 1000), "20 of 21 layers, 98.4 % of the parameters (float16)"),
        (counted(0, 21, 0, 1000), "nothing"),
        (counted(0, 0, 0, 0), "nothing"),
        (counted(20, 21, 984, "many"), None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "result.json"])
def test_what_really_computed_in_16_bits_is_read_where_it_is_recorded(file, value, told, tmp_path):
    rewrite(write_run(tmp_path, name="a", policy="mixed_float16") / file, computes_in=value)
    (run,), _ = find(tmp_path)
    assert run.computes_in == told


@pytest.mark.parametrize("value", [..., counted(20, 21, 984, 1000)])
def test_what_really_computed_in_16_bits_is_shown_where_it_is_known(value, tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    folder = write_run(tmp_path, name="a", policy="mixed_float16")
    rewrite(folder / "config.json", computes_in=value)
    _, _, text = undrawn(tmp_path)
    is_known = value is not ...
    assert ("| Computes in 16 bits |" in text) is is_known
    assert ("20 of 21 layers, 98.4 % of the parameters (float16)" in text) is is_known
