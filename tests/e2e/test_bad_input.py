"""Bad input is refused with one message and exit code 2; what fails later says so and ends in 1."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from short_runs import HERE, ODD, TINY

from tests.marks import slow
from tfamp import train as command
from tfamp.run import records
from tfamp.run.config import declarations

ROOT = Path(__file__).parents[2]
FILE = HERE / "tiny_model.py"
ODD_LINES = Path(ODD).read_text().splitlines()
LOOPS = ("fit", "custom")
FINISHED = '{"written_by": "tfamp", "status": "completed"}'
ROW = '{"kind": "step", "step": 1, "epoch": 0}\n'
SHORT = (
    f"--model={TINY}",
    "--epochs=1",
    "--steps_per_epoch=4",
    "--batch_size=50",
    "--jit_compile=off",
    "--run_name=run",
    "--nosave_model",
)


def in_a_process(*arguments, python=(), cwd=ROOT):
    return subprocess.run(
        [sys.executable, *python, "-m", "tfamp.train", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


def in_this_process(*arguments):
    """What `python -m tfamp.train` does, less the process. Returns the exit code."""
    return command.main(arguments)


def message_in(stderr):
    """The one message of a refusal."""
    message, help_line, rest = stderr.split("\n", 2)
    assert message.startswith("tfamp: ")
    assert help_line == "Run with --helpshort to see every flag."
    assert rest == ""
    return message.removeprefix("tfamp: ")


# In a process, as a user meets it.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--polcy=float16"], "Unknown command line flag 'polcy'. Did you mean: policy"),
        (["--policy=mixed_float61"], "Unknown policy 'mixed_float61'. Did you mean 'mixed_float16"),
        (["--model=resnet21"], "Unknown model 'resnet21'. Did you mean 'resnet20'?"),
        # Said once TensorFlow is there.
        slow([f"--model={FILE}:no_model"], "the function returned int, not a keras.Model"),
    ],
)
def test_a_refusal_is_one_message_and_exit_code_2(arguments, expected, tmp_path):
    done = in_a_process(*arguments, f"--logdir={tmp_path}/logs")
    assert done.returncode == 2
    assert expected in message_in(done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "logs").exists()


def test_helpshort_lists_every_flag_and_imports_no_tensorflow():
    done = in_a_process("--helpshort", python=["-X", "importtime"])
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tfamp.run.flags" in imported
    assert not [name for name in imported if re.match(r"(tensorflow|keras|numpy)\b", name)]
    for name in declarations():
        assert re.search(rf"^\s+--(\[no\])?{name}:", done.stdout, re.MULTILINE), name
    assert done.stdout.lstrip().startswith("Trains a ResNet or a ViT")


def test_a_typing_error_costs_no_import_of_tensorflow(tmp_path):
    done = in_a_process("--model=resnet21", f"--logdir={tmp_path}", python=["-X", "importtime"])
    assert done.returncode == 2
    assert "| tfamp.run.flags" in done.stderr.replace("|   ", "| ").replace("|  ", "| ")
    assert not re.search(r"\| +(tensorflow|keras)$", done.stderr, re.MULTILINE)


# In this process, for speed.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Names.
        ("--policy=fp16", r"Unknown policy 'fp16'\. .*--policy takes: float32, mixed_float16"),
        ("--model=vit_tony", r"Unknown model 'vit_tony'\. Did you mean 'vit_tiny'\?"),
        ("--dataset=fashion-mnist", r"'fashion-mnist' is no dataset name\. Did you mean 'fashion"),
        ("--dataset=cifar1000", r"Unknown dataset 'cifar1000'\. Did you mean 'cifar100?'"),
        ("--augment=mixup", r"Unknown augmentation 'mixup'\. Did you mean 'mixup_cutmix'\?"),
        ("--optimizer=adam", r"Unknown optimizer 'adam'\. Did you mean 'adamw'\?"),
        ("--epoch=3", r"Unknown command line flag 'epoch'\. Did you mean: epochs"),
        # Sizes.
        ("--epochs=0", r"--epochs=0: it must be 1 or more"),
        ("--epochs=-1", r"--epochs=-1: it must be 1 or more"),
        ("--batch_size=0", r"--batch_size=0: it must be 1 or more"),
        ("--batch_size=-64", r"--batch_size=-64: it must be 1 or more"),
        ("--batch_size=5001", r"--batch_size=5001 is more than the 5000 training examples"),
        ("--image_size=0", r"--image_size=0: it must be 8 or more"),
        ("--image_size=-28", r"--image_size=-28: it must be 8 or more"),
        ("--steps_per_epoch=0", r"--steps_per_epoch=0: it must be 1 or more"),
        ("--num_examples=-1 --dataset=synthetic", r"--num_examples=-1: it must be 1 or more"),
        ("--num_classes=1 --dataset=synthetic", r"--num_classes=1: it must be from 2 to"),
        ("--num_classes=10", r"--num_classes=10 does not go with --dataset=fashion_mnist_mini"),
        ("--num_examples=9", r"--num_examples=9 does not go with --dataset=fashion_mnist_mini"),
        ("--learning_rate=0", r"--learning_rate=0: it must be above 0"),
        ("--learning_rate=nan", r"--learning_rate=nan: it must be above 0"),
        ("--log_every=0", r"--log_every=0: it must be from 1"),
        ("--steps_per_execution=99 --steps_per_epoch=9", r"exceeds the 9 steps of an epoch"),
        ("--profile_steps=9,3", r"--profile_steps=9,3: give the first and the last step"),
        # Numbers that nothing holds.
        ("--seed=99999999999999", r"--seed=99999999999999: it must be from 0 to 4294967295\."),
        ("--seed=-1", r"--seed=-1: it must be from 0"),
        ("--epochs=99999999999999999999", r"--epochs=9+: it must be 2147483647 or less"),
        ("--steps_per_epoch=99999999999999999999", r"--steps_per_epoch=9+: it must be 2147"),
        ("--warmup_steps=99999999999999999999", r"--warmup_steps=9+: it must be 21474"),
        ("--log_every=100000000000", r"--log_every=100000000000: it must be from 1 to 1000000\."),
        ("--learning_rate=1e39", r"--learning_rate=1e\+39: float32 does not hold it"),
        ("--learning_rate=1e-50", r"--learning_rate=1e-50: float32 does not hold it"),
        ("--learning_rate=inf", r"--learning_rate=inf: float32 does not hold it"),
        ("--weight_decay=1e39", r"--weight_decay=1e\+39: float32 does not hold it"),
        ("--clip_global_norm=1e-46", r"--clip_global_norm=1e-46: float32 does not hold it"),
        ("--image_size=100000", r"--image_size=100000: a batch of 50 .* takes 1,8\d\d GiB"),
        (
            "--dataset=synthetic --num_classes=1000000000",
            r"--num_classes=1000000000: it must be from 2 to 1000000\.",
        ),
        ("--dataset=synthetic --num_examples=99999999999999999999", r"--num_examples=9+: it must"),
        ("--profile_steps=5,6", r"--profile_steps=5,6: the run has 4 steps, so nothing would be"),
        # Words that are none.
        ("--jit_compile=maybe", r"--jit_compile=maybe: it must be on or off"),
        ("--logdir=", r"--logdir='': give a folder"),
        ("--logdir=~nobody-here/runs", r"--logdir=~nobody-here/runs: there is no such user's home"),
        (f"--logdir=/tmp/{'a' * 256}", r"/tmp/a+/run can be no folder: File name too long\. Set"),
        (f"--run_name={'a' * 256}", r"a folder's name takes 255 bytes at most\. Set a shorter"),
        ("--flagfile=/absent.flags", r"^Unable to open flagfile: .*'/absent\.flags'"),
        # Loss scaling.
        ("--policy=float16 --loss_scale=1e39", r"--loss_scale=1e39: .*below 2.127"),
        ("--policy=float16 --loss_scale=1e-46", r"--loss_scale=1e-46: .*below 2.127"),
        ("--policy=float16 --min_loss_scale=1e-40", r"--min_loss_scale=1e-40: it must be 2\^-126"),
        ("--policy=float16 --max_loss_scale=1e39", r"--max_loss_scale=1e\+39: it must be 2\^-126"),
        (
            "--policy=float16 --loss_scale_growth_steps=99999999999999999999",
            r"--loss_scale_growth_steps=9+: it must be 2147483647 or",
        ),
        ("--policy=float16 --loss_scale=-1", r"--loss_scale=-1: it takes 'dynamic', 'none' or a"),
        ("--loss_scale=1024", r"--loss_scale=1024.* computes in float16|only float16 needs"),
        (
            "--policy=bfloat16 --initial_loss_scale=1024 --model=resnet20",
            r"--initial_loss_scale with --policy=bfloat16: only float16 needs a loss scale",
        ),
        (
            "--policy=mixed_bfloat16 --max_skipped_in_a_row=3 --model=resnet20",
            r"--max_skipped_in_a_row with --policy=mixed_bfloat16: only float16 needs",
        ),
        ("--policy=float32 --loss_scale=1024 --model=resnet20", r"only float16 needs a loss scale"),
        ("--policy=float16 --min_loss_scale=65536", r"--initial_loss_scale=32768 lies outside"),
        # Images that a model cannot take.
        ("--image_size=4", r"--image_size=4: it must be 8 or more"),
        ("--image_size=4 --model=vit_tiny", r"--image_size=4: it must be 8 or more"),
        ("--image_size=30 --model=vit_tiny", r"30x30 pixels cannot be cut into .* --image_size=28"),
        # Models of the user's.
        ("--model=absent.py:net", r"absent\.py does not exist"),
        (f"--model={FILE}:tinny", r"has no function 'tinny'\. Did you mean 'tiny'\?"),
        (f"--model={FILE}:no_model", r"the function returned int, not a keras\.Model"),
        (f"--model={FILE}:too_narrow", r"output is shape \(None, 9\); it must be .*\(None, 10\)"),
        (f"--model={FILE}", r"the part after the last colon must name a function"),
        (f"--model={ODD}:whole_numbers", r"the model's output is int32, which has no gradient"),
        *(
            (
                f"--model={ODD}:{function} --loop={loop} --policy={policy}",
                r"none of the 2 weights of '\w+' is trainable, so there is nothing to train\. Set",
            )
            for function, loop, policy in (
                ("frozen", "fit", "float32"),
                ("frozen", "custom", "bfloat16"),
                ("frozen_layers", "custom", "mixed_float16"),
            )
        ),
        ("--float32_layers=conv7", r"'conv7' matches no layer of 'tiny'\. Near it: conv\d"),
        # Sets of TFDS's.
        ("--dataset=imdb_reviews", r"--dataset=imdb_reviews is no image classification set: its"),
        ("--dataset=voc", r"--dataset=voc is no image classification set"),
    ],
)
def test_what_is_refused_at_the_door(arguments, expected, tmp_path, capsys):
    code = in_this_process(*SHORT, f"--logdir={tmp_path}/logs", *arguments.split())
    said = capsys.readouterr()
    assert code == 2, said
    assert re.search(expected, message_in(said.err))
    # Nothing is left behind.
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("logdir", ["{}/file", "{}/file/deeper", "/dev/null/x", "/proc/tfamp"])
def test_a_logdir_that_cannot_be_written(logdir, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    code = in_this_process(*SHORT, f"--logdir={logdir.format(tmp_path)}")
    assert code == 2
    assert "--logdir" in message_in(capsys.readouterr().err)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_logdir_that_cannot_be_written_is_said_before_anything_is_loaded(tmp_path, capsys):
    (tmp_path / "file").touch()
    in_this_process(*SHORT, f"--logdir={tmp_path}/file")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments", [[], ["--policy=nothing"], ["--batch_size=0"], ["--model=absent.py:net"]]
)
def test_a_finished_run_is_not_touched(arguments, tmp_path, capsys):
    run = tmp_path / "run"
    for folder in ("train", "validation"):
        (run / folder).mkdir(parents=True)
        (run / folder / "events.out.tfevents.1.host.1.0.tfamp").write_text("events")
    (run / "metrics.jsonl").write_text(ROW)
    (run / "result.json").write_text(FINISHED)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert in_this_process(*SHORT, f"--logdir={tmp_path}", *arguments) == 2
    message = message_in(capsys.readouterr().err)
    if not arguments:
        assert f"{run} holds a finished run. Set --overwrite" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch_size=5001"],
        ["--float32_layers=conv7"],
        [f"--model={FILE}:no_model"],
        ["--num_classes=3"],
        ["--steps_per_execution=5"],
    ],
)
def test_a_finished_run_survives_an_overwrite_that_is_refused(arguments, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text(FINISHED)
    (run / "metrics.jsonl").write_text(ROW)
    assert in_this_process(*SHORT, f"--logdir={tmp_path}", "--overwrite", *arguments) == 2
    message_in(capsys.readouterr().err)
    assert (run / "result.json").read_text() == FINISHED
    assert (run / "metrics.jsonl").read_text() == ROW


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_folder_of_the_users_own_is_refused(overwrite, tmp_path, capsys, monkeypatch):
    files = ("train/cats/1.jpg", "validation/dogs/2.jpg", "checkpoints/best.keras", "config.json")
    for name in files:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert in_this_process(*SHORT, "--logdir=.", *overwrite) == 2
    message = message_in(capsys.readouterr().err)
    assert "checkpoints/, config.json, train/cats/, validation/dogs/" in message
    assert message.endswith("Set another --run_name or --logdir.")
    assert all((tmp_path / "run" / name).read_text() == "mine" for name in files)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(files)


def test_a_flagfile_that_is_no_text(tmp_path, capsys):
    (tmp_path / "picture.flags").write_bytes(b"\xff\xd8\xff\xe0")
    assert in_this_process(f"--flagfile={tmp_path}/picture.flags") == 2
    assert message_in(capsys.readouterr().err).startswith("--flagfile: it is no text in UTF-8")


def test_numbers_out_of_range_cost_no_import_of_tensorflow(tmp_path):
    numbers = ("--seed=99999999999999", "--log_every=100000000000", "--learning_rate=1e39")
    code = f"""
import sys
from tfamp.run import flags as run_flags
from tfamp.run.errors import InputError
for number in {numbers}:
    try:
        run_flags.config_from_arguments([number])
    except InputError:
        continue
    sys.exit(number)
sys.exit("tensorflow" if "tensorflow" in sys.modules else 0)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_model_file_below_the_home_folder(tmp_path, capsys, monkeypatch):
    """The shell leaves the ~ of --model=~/net.py as it is."""
    monkeypatch.setenv("HOME", str(HERE))
    arguments = [a for a in SHORT if not a.startswith("--model")]
    model = "--model=~/tiny_model.py:no_model"
    assert in_this_process(*arguments, model, f"--logdir={tmp_path}") == 2
    assert "the function returned int" in message_in(capsys.readouterr().err)


def test_ctrl_c_while_tensorflow_is_loaded(tmp_path, capsys, monkeypatch):
    def pressed(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.startup, "import_tensorflow", pressed)
    assert in_this_process(*SHORT, f"--logdir={tmp_path}/logs") == 130
    said = capsys.readouterr().err
    assert said == "\nInterrupted while TensorFlow was loaded: nothing was run.\n"
    assert not (tmp_path / "logs").exists()


# What fails later.


def test_sys_exit_in_the_users_function_is_a_failed_run(tmp_path, capsys):
    line = ODD_LINES.index("    sys.exit(3)") + 1
    said = f"sys.exit(3) was called at {ODD}, line {line}"
    assert in_this_process(*SHORT, f"--model={ODD}:exits", f"--logdir={tmp_path}") == 1
    assert capsys.readouterr().err == (
        f"\nThe run failed: {said}, by code that --model={ODD}:exits runs. "
        f"Raise an exception there instead. {tmp_path}/run/result.json says so too.\n"
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", f"ExitCalled: {said}")


@pytest.mark.parametrize("loop", LOOPS)
def test_sys_exit_in_training_is_a_failed_run(loop, tmp_path, capsys):
    arguments = (*SHORT, f"--model={ODD}:exits_in_training", f"--loop={loop}")
    assert in_this_process(*arguments, f"--logdir={tmp_path}") == 1
    line = ODD_LINES.index('            sys.exit("no more")') + 1
    said = f"sys.exit('no more') was called at {ODD}, line {line}"
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", f"ExitCalled: {said}")


def test_sys_exit_at_import_of_the_users_file_is_bad_input(tmp_path, capsys):
    file = tmp_path / "exiting.py"
    file.write_text("import sys\nsys.exit(3)\n")
    arguments = (*SHORT, f"--model={file}:net", f"--logdir={tmp_path}/logs")
    assert in_this_process(*arguments) == 2
    message = message_in(capsys.readouterr().err)
    assert f"{file} fails to import: it called sys.exit(3) at {file}, line 2." in message


@pytest.mark.parametrize(
    ("file", "function", "error"),
    [
        (FILE, "needs_data_that_is_not_there", "FileNotFoundError: weights.h5 is not there"),
        (ODD, "raises_key_error", "KeyError: 'width'"),
    ],
)
def test_a_users_function_that_raises_is_a_failed_run(file, function, error, tmp_path, capsys):
    arguments = (*SHORT, f"--model={file}:{function}", f"--logdir={tmp_path}/logs")
    assert in_this_process(*arguments) == 1
    said = capsys.readouterr().err
    assert f"def {function}" not in said
    assert f"in {function}" in said  # The traceback leads to the user's own line.
    result = json.loads((tmp_path / "logs" / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", error)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_error_in_training(loop, tmp_path, capsys):
    arguments = (*SHORT, f"--model={ODD}:fails_in_training", f"--loop={loop}", "--log_every=10")
    assert in_this_process(*arguments, f"--logdir={tmp_path}") == 1
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert f"The run failed; the error is in {tmp_path}/run/result.json too." in said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "planted fault" in result["error"]
    # The steps before it are there, though none was due to be read yet; the one that was broken
    # off leaves no row of zeros.
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2]
    (event,) = [row for row in rows if row["kind"] == "event"]
    assert (event["event"], rows[-1]) == ("failed", event)
    assert event["error"] == result["error"]


def test_a_device_that_answers_no_more_hides_no_error(tmp_path, capsys, monkeypatch):
    """What went wrong is on disk before the device is asked for its last steps."""
    from tfamp.precision.history import StepHistory

    def lost(*_):
        raise RuntimeError("the device is gone")

    arguments = (*SHORT, f"--model={ODD}:fails_in_training", f"--logdir={tmp_path}")
    real = StepHistory.read
    # The first call is that before the first step.
    calls = iter([real])
    monkeypatch.setattr(StepHistory, "read", lambda *a: next(calls, lost)(*a))
    assert in_this_process(*arguments) == 1
    capsys.readouterr()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "planted fault" in result["error"]
    (event,) = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert (event["event"], event["error"]) == ("failed", result["error"])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_collapse_of_the_loss_scale(loop, tmp_path, capsys):
    arguments = (
        f"--model={ODD}:overflows",
        f"--loop={loop}",
        "--policy=mixed_float16",
        "--max_skipped_in_a_row=1",
        "--log_every=2",
        f"--logdir={tmp_path}",
    )
    assert in_this_process(*SHORT, *arguments) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "\nThe run failed. Loss scaling collapsed at step 2: " in said
    assert "The first non-finite gradient is that of '" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"].startswith("LossScaleCollapse: Loss scaling collapsed at step 2")


def test_data_that_breaks_ends_as_failed(tmp_path, capsys, monkeypatch):
    """Before there is a model or a row."""
    from tfamp.data import embedded

    def corrupted():
        raise OSError("fashion_mnist_mini.npz is corrupted")

    monkeypatch.setattr(embedded, "read", corrupted)
    assert in_this_process(*SHORT, f"--logdir={tmp_path}") == 1
    assert "Traceback" in capsys.readouterr().err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"] == "OSError: fashion_mnist_mini.npz is corrupted"
    assert "loss_scale" not in result


def test_a_failed_run_may_be_run_again(tmp_path, capsys):
    place = f"--logdir={tmp_path}"
    assert in_this_process(*SHORT, place, f"--model={ODD}:fails_in_training") == 1
    assert in_this_process(*SHORT, place) == 0
    capsys.readouterr()
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2, 3, 4]
    assert not [row for row in rows if row["kind"] == "event"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"


def test_a_run_that_completes_says_what_it_bought(tmp_path, capsys):
    assert in_this_process(*SHORT, f"--logdir={tmp_path}", "--policy=mixed_float16") == 0
    said = capsys.readouterr()
    assert said.err == ""
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"validation accuracy  {100 * result['validation_accuracy']:.2f} %" in said.out
    assert "loss scale           32768 -> 32768 (dynamic), 0 of 4 steps skipped" in said.out
    assert f"files                {tmp_path}/run\n" in said.out
    assert f"python -m tensorboard.main --logdir {tmp_path}\n" in said.out
