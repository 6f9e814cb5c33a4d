"""The command `python -m tfamp.sweep`, with stand-ins for the trainer and with the trainer."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from short_runs import HERE, TINY

from tests.messages import says
from tests.sweeping.stand_ins import stand_in_command
from tfamp import sweep

ROOT = Path(__file__).parents[2]
REPORT = (sys.executable, "-I", "-S", "-c", "import sys; print('report of', sys.argv[1])")
NO_REPORT = (sys.executable, "-I", "-S", "-c", "import sys; sys.exit(3)")
A, B = (
    f"resnet20-fashion_mnist_mini-{policy}-fit-seed0" for policy in ("float32", "mixed_float16")
)


@pytest.fixture
def run(capfd):
    """Runs a sweep of stand-ins in this process: exit code, lines of stdout, stderr."""

    def sweep_once(*arguments, report=REPORT, **behaviours):
        def command(cell):
            behaviour = behaviours.get(cell.config.policy, "completes")
            return stand_in_command(cell, behaviour)

        code = sweep.main([str(argument) for argument in arguments], command, report)
        said = capfd.readouterr()
        return code, said.out.splitlines(), said.err

    return sweep_once


def without_times(lines):
    return [re.sub(r" in \d+ s$| after \d+ s| about \d+ s left", " TIME", line) for line in lines]


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_sweep(run, tmp_path):
    code, lines, stderr = run(tmp_path / "runs", "--loss_scales=dynamic,8", "--", "--epochs=2")
    assert (code, stderr) == (0, "")
    assert without_times(lines) == [
        "3 cells, 0 of them finished already, 3 to run:",
        "  policies    float32, mixed_float16",
        "  models      resnet20",
        "  datasets    fashion_mnist_mini",
        "  loops       fit",
        "  seeds       0",
        "  loss_scales dynamic, 8",
        "Every cell is compiled with XLA (--jit_compile), so that only what is swept differs; "
        "'-- --nojit_compile' turns it off.",
        f"[1/3] {A} (3 to go, no estimate yet)",
        "    Epoch 1/2  1.0 s  loss 2.0",
        "    Epoch 2/2  1.0 s  loss 1.0",
        f"[1/3] {A}: completed TIME",
        f"[2/3] {B} (2 to go, TIME)",
        "    Epoch 1/2  1.0 s  loss 2.0",
        "    Epoch 2/2  1.0 s  loss 1.0",
        f"[2/3] {B}: completed TIME",
        f"[3/3] {B}-loss_scale_8 (1 to go, TIME)",
        "    Epoch 1/2  1.0 s  loss 2.0",
        "    Epoch 2/2  1.0 s  loss 1.0",
        f"[3/3] {B}-loss_scale_8: completed TIME",
        "3 of 3 cells completed.",
        f"report of {tmp_path}/runs",
    ]
    note = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert note["cells"] == [A, B, f"{B}-loss_scale_8"]
    assert note["jobs"] == 1
    assert note["command_line"][1:] == [
        f"{tmp_path}/runs",
        "--loss_scales=dynamic,8",
        "--",
        "--epochs=2",
    ]


def test_finished_cells_are_passed_over(run, tmp_path):
    assert run(tmp_path, "--policies=float32")[0] == 0
    before = files(tmp_path / A)
    code, lines, _ = run(tmp_path)
    assert code == 0
    assert says(lines[0], "2 cells", "1 of them finished", "1 to run")
    assert [line for line in lines if A in line] == []
    assert files(tmp_path / A) == before
    code, lines, _ = run(tmp_path)
    assert code == 0
    assert says(lines[-2], "2 of 2") and lines[-1] == f"report of {tmp_path}"
    assert says(lines[0], "2 cells", "2 of them finished", "0 to run")
    assert json.loads((tmp_path / "sweep.json").read_text())["cells"] == [A, B]


def test_a_failed_cell(run, tmp_path):
    code, lines, _ = run(tmp_path, float32="fails")
    assert code == 1
    done, failed, advice, report = lines[-4:]
    assert says(done, "1 of 2") and says(failed, "failed", A, f"{tmp_path}/{A}/train.log")
    assert says(advice, "same command") and report == f"report of {tmp_path}"
    assert f"[2/2] {B}: completed TIME" in without_times(lines)
    # The fault is gone: only the failed cell is run.
    code, lines, _ = run(tmp_path)
    assert code == 0
    assert [line for line in lines if B in line] == []


def test_a_report_that_fails(run, tmp_path):
    code, _, stderr = run(tmp_path, report=NO_REPORT)
    assert code == 1
    assert says(stderr, "report", "failed", "exit code 3")
    code, _, stderr = run(tmp_path, report=["/absent/python"])
    assert code == 1
    assert says(stderr, "report", "did not start", "/absent/python")


def test_several_at_a_time_are_warned_of_and_noted(run, tmp_path):
    code, lines, _ = run(tmp_path, "--jobs=2", "--", "--nojit_compile")
    assert code == 0
    (warning,) = [line for line in lines if line.startswith("Warning: ")]
    assert says(warning, "--jobs=2", "times", "throughput", "--jobs=1")
    assert not [line for line in lines if "XLA" in line]
    assert json.loads((tmp_path / "sweep.json").read_text())["jobs"] == 2


def test_finished_cells_of_another_config_are_kept_unless_overwritten(run, tmp_path):
    assert run(tmp_path, "--policies=float32", "--", "--epochs=1")[0] == 0
    before = files(tmp_path)
    code, lines, stderr = run(tmp_path, "--", "--epochs=2")
    assert (code, lines) == (2, [])
    message, help_line = stderr.splitlines()
    assert says(message, f"{tmp_path}/{A}", "epochs 1 there and 2 here", "'-- --overwrite'")
    assert says(help_line, "--helpshort")
    assert files(tmp_path) == before
    overwriting = (tmp_path, "--", "--epochs=2", "--overwrite")
    code, lines, _ = run(*overwriting, mixed_float16="fails")
    assert code == 1 and says(lines[0], "2 cells", "0 of them finished", "2 to run")
    # Killed or failed and begun again, it goes on: what matches is not run again.
    code, lines, _ = run(*overwriting)
    assert code == 0 and says(lines[0], "2 cells", "1 of them finished", "1 to run")


def test_a_dry_run_prints_commands_that_can_be_pasted_and_changes_nothing(run, tmp_path):
    logdir = tmp_path / "my runs"
    assert run(logdir, "--policies=float32", "--dry_run")[0] == 0
    assert list(tmp_path.iterdir()) == []
    assert run(logdir, "--policies=float32")[0] == 0
    before = files(tmp_path)
    code, lines, stderr = run(logdir, "--seeds=0,1", "--dry_run", "--", "--data_dir=a b")
    assert (code, lines) == (2, [])
    code, lines, stderr = run(logdir, "--seeds=0,1", "--dry_run")
    assert (code, stderr) == (0, "")
    assert len(lines) == 4
    assert lines[0] == f"# finished: {A}"
    assert shlex.split(lines[1]) == [
        *(sys.executable, "-m", "tfamp.train", "--jit_compile"),
        *("--policy=mixed_float16", "--model=resnet20", "--dataset=fashion_mnist_mini"),
        *("--loop=fit", "--seed=0", "--loss_scale=dynamic"),
        *(f"--logdir={logdir}", f"--run_name={B}"),
    ]
    assert files(tmp_path) == before


def test_two_sweeps_in_one_folder(run, tmp_path):
    with sweep.SweepFolder(tmp_path).locked():
        code, lines, stderr = run(tmp_path)
    assert (code, lines) == (2, [])
    assert says(stderr, "sweep", os.getpid(), tmp_path)
    assert not (tmp_path / "sweep.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ("LOGDIR", "python -m tfamp.sweep LOGDIR")),
        (["--", "--epochs=3"], ("LOGDIR", "python -m tfamp.sweep LOGDIR")),
        (["{}", "--epochs=3"], ("flag 'epochs'", "'--'")),
        (["{}", "--polices=float32"], ("flag 'polices'", "policies")),
        (["{}", "--policy=float32"], ("flag 'policy'", "policies")),
        (["{}", "more"], ("Unexpected", "'more'", "--flag=value", "'--'")),
        (["{}", "--jobs"], ("Missing", "--jobs")),
        (["{}", "--jobs=0"], ("--jobs=0", 1)),
        (["{}", "--jobs=two"], ("--jobs=two", "whole number")),
        (["{}", "--dry_run=yes"], ("--dry_run=yes", "on", "off")),
        (["{}", "--policies=float33"], ("'float33'", "'float32'", "--policies")),
        (["{}", "--", "--epochs=0"], (A, "--epochs=0", 1)),
        (["{}", "--", "--seed=3"], ("--seed=3", "'--'", "--seeds=3")),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_bad_input_is_one_message_and_exit_code_2(arguments, message, dry, run, tmp_path):
    logdir = tmp_path / "runs"
    code, lines, stderr = run(*dry, *(argument.format(logdir) for argument in arguments))
    assert (code, lines) == (2, [])
    said, help_line = stderr.splitlines()
    assert said.startswith("tfamp: ") and says(said, *message)
    assert says(help_line, "--helpshort")
    assert not logdir.exists()


def in_a_process(*arguments, python=()):
    return subprocess.run(
        [sys.executable, *python, "-m", "tfamp.sweep", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_help():
    done = in_a_process("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "LOGDIR [--flag=value ...] [-- TRAIN FLAG ...]" in done.stdout
    for option in ("policies", "models", "datasets", "loops", "seeds", "loss_scales", "jobs"):
        assert f"--{option}:" in done.stdout
    # The example in it is one that works.
    example = re.search(r"python -m tfamp\.sweep runs/.*?\n\n", done.stdout, re.DOTALL)[0]
    _, _, _, *arguments = shlex.split(example.replace("\\\n", " "))
    done = in_a_process(*arguments[:1], "--dry_run", *arguments[1:])
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 18


def test_a_sweep_imports_no_tensorflow(tmp_path):
    done = in_a_process(str(tmp_path), "--dry_run", python=["-X", "importtime"])
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"tfamp.sweeping.runner", "tfamp.models.registry"} <= imported
    assert not [name for name in imported if re.match(r"(tensorflow|keras|numpy)\b", name)]


DRIVER = (
    "import sys; from tfamp import sweep; "
    f"sys.exit(sweep.main(sys.argv[1:], report_command={REPORT!r}))"
)


def begin(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


TRAIN_FLAGS = ("--steps_per_epoch=4", "--batch_size=50", "--log_every=2", "--nojit_compile",
               "--nosave_model")  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_ends_the_training_with_its_rows_written(tmp_path):
    arguments = (tmp_path, "--policies=float32", f"--models={TINY}", "--seeds=0,1")
    process = begin(*arguments, "--", "--epochs=100000", *TRAIN_FLAGS)
    try:
        assert any("Epoch 2/" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert says(rest.splitlines()[-1], "SIGINT", "0 of 2", "same command")
    assert "report of" not in rest
    (result,) = tmp_path.glob("*/result.json")
    assert json.loads(result.read_text())["status"] == "interrupted"
    rows = (result.parent / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["event"] == "interrupted"


def test_a_reader_that_goes_away_ends_the_sweep(tmp_path):
    arguments = [sys.executable, "-m", "tfamp.sweep", str(tmp_path), "--policies=float32"]
    process = subprocess.Popen(
        [*arguments, "--", "--epochs=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 128 + signal.SIGPIPE
    assert stderr == ""
    assert not list(tmp_path.glob("*/result.json"))


@pytest.mark.slow
def test_models_that_fail_are_told_with_the_reason(tmp_path):
    file = HERE / "tiny_model.py"
    models = f"{file}:needs_data_that_is_not_there,{file}:no_model,{TINY}"
    process = begin(
        tmp_path, "--policies=float32", f"--models={models}", "--", "--epochs=1", *TRAIN_FLAGS
    )
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "    | FileNotFoundError: weights.h5 is not there\n" in output
    assert says(output, f"{file}:no_model", "int", "keras.Model", "1 of 3")
    assert output.endswith(f"report of {tmp_path}\n")
