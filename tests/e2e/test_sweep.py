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
    assert lines[0] == "2 cells, 1 of them finished already, 1 to run:"
    assert [line for line in lines if A in line] == []
    assert files(tmp_path / A) == before
    code, lines, _ = run(tmp_path)
    assert code == 0
    assert lines[-2:] == ["2 of 2 cells completed.", f"report of {tmp_path}"]
    assert lines[0] == "2 cells, 2 of them finished already, 0 to run:"
    assert json.loads((tmp_path / "sweep.json").read_text())["cells"] == [A, B]


def test_a_failed_cell(run, tmp_path):
    code, lines, _ = run(tmp_path, float32="fails")
    assert code == 1
    assert lines[-4:] == [
        "1 of 2 cells completed.",
        f"  failed: {A}, see {tmp_path}/{A}/train.log",
        "The same command runs these again and passes over the others.",
        f"report of {tmp_path}",
    ]
    assert f"[2/2] {B}: completed TIME" in without_times(lines)
    # The fault is gone: only the failed cell is run.
    code, lines, _ = run(tmp_path)
    assert code == 0
    assert [line for line in lines if B in line] == []


def test_a_report_that_fails(run, tmp_path):
    code, _, stderr = run(tmp_path, report=NO_REPORT)
    assert code == 1
    assert stderr.startswith("The report failed (exit code 3): ")
    code, _, stderr = run(tmp_path, report=["/absent/python"])
    assert code == 1
    assert stderr.startswith("The report did not start: ")


def test_several_at_a_time_are_warned_of_and_noted(run, tmp_path):
    code, lines, _ = run(tmp_path, "--jobs=2", "--", "--nojit_compile")
    assert code == 0
    assert (
        "Warning: --jobs=2 processes slow each other down, so times and throughput of these cells "
        "cannot be compared. Use --jobs=1 to measure them."
    ) in lines
    assert not [line for line in lines if "XLA" in line]
    assert json.loads((tmp_path / "sweep.json").read_text())["jobs"] == 2


def test_finished_cells_of_another_config_are_kept_unless_overwritten(run, tmp_path):
    assert run(tmp_path, "--policies=float32", "--", "--epochs=1")[0] == 0
    before = files(tmp_path)
    code, lines, stderr = run(tmp_path, "--", "--epochs=2")
    assert (code, lines) == (2, [])
    assert stderr.splitlines() == [
        f"tfamp: Finished with another configuration: {tmp_path}/{A} (epochs 1 there and 2 here). "
        "Finished runs are kept. Give another LOGDIR, or add '-- --overwrite' to replace these.",
        "Run with --helpshort to see every flag.",
    ]
    assert files(tmp_path) == before
    overwriting = (tmp_path, "--", "--epochs=2", "--overwrite")
    code, lines, _ = run(*overwriting, mixed_float16="fails")
    assert (code, lines[0]) == (1, "2 cells, 0 of them finished already, 2 to run:")
    # Killed or failed and begun again, it goes on: what matches is not run again.
    code, lines, _ = run(*overwriting)
    assert (code, lines[0]) == (0, "2 cells, 1 of them finished already, 1 to run:")


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
    assert f"Another sweep (process {os.getpid()}) is at work in {tmp_path}." in stderr
    assert not (tmp_path / "sweep.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No LOGDIR came. Give one: python -m tfamp.sweep LOGDIR"),
        (["--", "--epochs=3"], "No LOGDIR came."),
        (["{}", "--epochs=3"], "Unknown command line flag 'epochs'. Options of the sweep come bef"),
        (
            ["{}", "--polices=float32"],
            "Unknown command line flag 'polices'. Did you mean: policies",
        ),
        (["{}", "--policy=float32"], "Unknown command line flag 'policy'. Did you mean: policies"),
        (["{}", "more"], "Unexpected argument 'more': every option is a --flag=value. Options of"),
        (["{}", "--jobs"], "Missing value for flag --jobs"),
        (["{}", "--jobs=0"], "--jobs=0: it must be 1 or more"),
        (["{}", "--jobs=two"], "--jobs=two: it must be a whole number"),
        (["{}", "--dry_run=yes"], "--dry_run=yes: it must be on or off"),
        (["{}", "--policies=float33"], "Unknown policy 'float33'. Did you mean 'float32'?"),
        (["{}", "--", "--epochs=0"], f"The cell {A} cannot be run: --epochs=0: it must be 1 or"),
        (["{}", "--", "--seed=3"], "--seed=3 after '--': the sweep sets --seed for each"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_bad_input_is_one_message_and_exit_code_2(arguments, message, dry, run, tmp_path):
    logdir = tmp_path / "runs"
    code, lines, stderr = run(*dry, *(argument.format(logdir) for argument in arguments))
    assert (code, lines) == (2, [])
    said, help_line = stderr.splitlines()
    assert said.startswith(f"tfamp: {message}")
    assert help_line == "Run with --helpshort to see every flag."
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
    assert rest.endswith(
        "\nInterrupted by SIGINT: 0 of 2 cells are completed. "
        "The same command goes on from there.\n"
    )
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
    assert "no_model: the function returned int, not a keras.Model." in output
    assert "1 of 3 cells completed.\n" in output
    assert output.endswith(f"report of {tmp_path}\n")
