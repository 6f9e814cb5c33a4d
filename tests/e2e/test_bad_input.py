"""Bad input is refused with one message and exit code 2; what fails later says so and ends in 1."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from short_runs import HERE, ODD, TINY

from tests.marks import slow
from tests.messages import says
from tfamp import train as command
from tfamp.run import records
from tfamp.run.config import declarations

ROOT = Path(__file__).parents[2]
FILE = HERE / "tiny_model.py"
ODD_LINES = Path(ODD).read_text().splitlines()
LOOPS = ("fit", "custom")
# Each function, loop and policy once; the other cases are slow.
FROZEN = (
    ("frozen", "fit", "float32"),
    ("frozen", "custom", "bfloat16"),
    ("frozen_layers", "custom", "mixed_float16"),
)
HUGE = "99999999999999999999"
LONG = 256 * "a"
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
        (["--polcy=float16"], ("flag 'polcy'", "policy")),
        (["--policy=mixed_float61"], ("'mixed_float61'", "'mixed_float16'", "--policy")),
        (["--model=resnet21"], ("'resnet21'", "'resnet20'", "--model")),
        # Said once TensorFlow is there.
        slow([f"--model={FILE}:no_model"], (f"{FILE}:no_model", "int", "keras.Model")),
    ],
)
def test_a_refusal_is_one_message_and_exit_code_2(arguments, expected, tmp_path):
    done = in_a_process(*arguments, f"--logdir={tmp_path}/logs")
    assert done.returncode == 2
    assert says(message_in(done.stderr), *expected)
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
        ("--policy=fp16", ("'fp16'", "--policy", "float32", "mixed_float16")),
        ("--model=vit_tony", ("'vit_tony'", "'vit_tiny'", "--model")),
        ("--dataset=fashion-mnist", ("'fashion-mnist'", "'fashion_mnist'", "--dataset")),
        ("--dataset=cifar1000", ("'cifar1000'", "'cifar10", "--dataset")),
        ("--augment=mixup", ("'mixup'", "'mixup_cutmix'", "--augment")),
        ("--optimizer=adam", ("'adam'", "'adamw'", "--optimizer")),
        ("--epoch=3", ("flag 'epoch'", "epochs")),
        # Sizes.
        ("--epochs=0", ("--epochs=0", 1)),
        ("--epochs=-1", ("--epochs=-1", 1)),
        ("--batch_size=0", ("--batch_size=0", 1)),
        ("--batch_size=-64", ("--batch_size=-64", 1)),
        ("--batch_size=5001", ("--batch_size=5001", 5000)),
        ("--image_size=0", ("--image_size=0", 8)),
        ("--image_size=-28", ("--image_size=-28", 8)),
        ("--steps_per_epoch=0", ("--steps_per_epoch=0", 1)),
        ("--num_examples=-1 --dataset=synthetic", ("--num_examples=-1", 1)),
        ("--num_classes=1 --dataset=synthetic", ("--num_classes=1", 2, 1000000)),
        ("--num_classes=10", ("--num_classes=10", "--dataset=fashion_mnist_mini")),
        ("--num_examples=9", ("--num_examples=9", "--dataset=fashion_mnist_mini")),
        ("--learning_rate=0", ("--learning_rate=0", "above 0")),
        ("--learning_rate=nan", ("--learning_rate=nan", "above 0")),
        ("--log_every=0", ("--log_every=0", 1, 1000000)),
        ("--steps_per_execution=99 --steps_per_epoch=9", ("--steps_per_execution=99", "9 steps")),
        ("--profile_steps=9,3", ("--profile_steps=9,3", "first", "last", "--profile_steps=")),
        # Numbers that nothing holds.
        ("--seed=99999999999999", ("--seed=99999999999999", 0, 4294967295)),
        ("--seed=-1", ("--seed=-1", 0, 4294967295)),
        (f"--epochs={HUGE}", (f"--epochs={HUGE}", 2147483647)),
        (f"--steps_per_epoch={HUGE}", (f"--steps_per_epoch={HUGE}", 2147483647)),
        (f"--warmup_steps={HUGE}", (f"--warmup_steps={HUGE}", 2147483647)),
        ("--log_every=100000000000", ("--log_every=100000000000", 1, 1000000)),
        ("--learning_rate=1e39", ("--learning_rate=1e+39", "float32", "3.4e+38")),
        ("--learning_rate=1e-50", ("--learning_rate=1e-50", "float32", "1.18e-38")),
        ("--learning_rate=inf", ("--learning_rate=inf", "float32", "3.4e+38")),
        ("--weight_decay=1e39", ("--weight_decay=1e+39", "float32", "3.4e+38")),
        ("--clip_global_norm=1e-46", ("--clip_global_norm=1e-46", "float32", "1.18e-38")),
        ("--image_size=100000", ("--image_size=100000", "batch of 50", "GiB")),
        (
            "--dataset=synthetic --num_classes=1000000000",
            ("--num_classes=1000000000", 2, 1000000),
        ),
        (f"--dataset=synthetic --num_examples={HUGE}", (f"--num_examples={HUGE}", 2147483647)),
        ("--profile_steps=5,6", ("--profile_steps=5,6", "4 steps")),
        # Words that are none.
        ("--jit_compile=maybe", ("--jit_compile=maybe", "on", "off")),
        ("--logdir=", ("--logdir=''", "folder")),
        ("--logdir=~nobody-here/runs", ("--logdir=~nobody-here/runs", "user")),
        (f"--logdir=/tmp/{LONG}", (f"/tmp/{LONG}/run", "File name too long", "--logdir")),
        (f"--run_name={LONG}", (LONG, 255, "--run_name")),
        ("--flagfile=/absent.flags", ("flagfile", "'/absent.flags'")),
        # Loss scaling.
        ("--policy=float16 --loss_scale=1e39", ("--loss_scale=1e39", "2^-126", "2^127")),
        ("--policy=float16 --loss_scale=1e-46", ("--loss_scale=1e-46", "2^-126", "2^127")),
        (
            "--policy=float16 --min_loss_scale=1e-40",
            ("--min_loss_scale=1e-40", "2^-126", "2^127"),
        ),
        (
            "--policy=float16 --max_loss_scale=1e39",
            ("--max_loss_scale=1e+39", "2^-126", "2^127"),
        ),
        (
            f"--policy=float16 --loss_scale_growth_steps={HUGE}",
            (f"--loss_scale_growth_steps={HUGE}", 2147483647),
        ),
        (
            "--policy=float16 --loss_scale=-1",
            ("--loss_scale=-1", "'dynamic'", "'none'", "--loss_scale=1024"),
        ),
        ("--loss_scale=1024", ("--loss_scale=1024", "computes in float16")),
        (
            "--policy=bfloat16 --initial_loss_scale=1024 --model=resnet20",
            ("--initial_loss_scale", "--policy=bfloat16", "mixed_float16", "float16"),
        ),
        (
            "--policy=mixed_bfloat16 --max_skipped_in_a_row=3 --model=resnet20",
            ("--max_skipped_in_a_row", "--policy=mixed_bfloat16", "mixed_float16", "float16"),
        ),
        (
            "--policy=float32 --loss_scale=1024 --model=resnet20",
            ("--loss_scale=1024", "--policy=float32", "mixed_float16", "float16"),
        ),
        (
            "--policy=float16 --min_loss_scale=65536",
            ("--initial_loss_scale=32768", "--min_loss_scale=65536", "--max_loss_scale="),
        ),
        ("--underflow_every=0", ("--underflow_every=0", 1)),
        (
            "--underflow_every=9 --model=resnet20 --policy=mixed_bfloat16",
            ("--underflow_every=9", "--policy=mixed_bfloat16", "mixed_float16", "float16"),
        ),
        ("--underflow_every=9", ("--underflow_every=9", "computes in float16")),
        ("--underflow_of=activations", ("--underflow_of=activations", "--underflow_every")),
        ("--underflow_every=9 --underflow_of=weight", ("'weight'", "'weights'")),
        # Images that a model cannot take.
        ("--image_size=4", ("--image_size=4", 8)),
        ("--image_size=4 --model=vit_tiny", ("--image_size=4", 8)),
        ("--image_size=30 --model=vit_tiny", ("30x30", "--image_size=28")),
        # Models of the user's.
        ("--model=absent.py:net", ("absent.py", "--model", "path/to/file.py:function")),
        (f"--model={FILE}:tinny", (FILE, "'tinny'", "'tiny'")),
        (f"--model={FILE}:no_model", (f"{FILE}:no_model", "int", "keras.Model")),
        (f"--model={FILE}:too_narrow", (f"{FILE}:too_narrow", "(None, 9)", "(None, 10)")),
        (f"--model={FILE}", (FILE, "last colon", "function")),
        (f"--model={ODD}:whole_numbers", (f"{ODD}:whole_numbers", "output", "int32")),
        *(
            (pytest.param if case in FROZEN else slow)(
                "--model={}:{} --loop={} --policy={}".format(ODD, *case),
                ("2 weights", "trainable"),
            )
            for case in itertools.product(
                ("frozen", "frozen_layers"), LOOPS, ("float32", "mixed_float16", "bfloat16")
            )
        ),
        ("--float32_layers=conv7", ("--float32_layers", "'conv7'", "'tiny'", "conv1")),
        # Sets of TFDS's.
        ("--dataset=imdb_reviews", ("--dataset=imdb_reviews", "image classification", "Text")),
        ("--dataset=voc", ("--dataset=voc", "image classification")),
    ],
)
def test_what_is_refused_at_the_door(arguments, expected, tmp_path, capsys):
    code = in_this_process(*SHORT, f"--logdir={tmp_path}/logs", *arguments.split())
    said = capsys.readouterr()
    assert code == 2, said
    assert says(message_in(said.err), *expected)
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
        assert says(message, run, "finished", "--overwrite")
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
    assert says(message, "run", "--run_name", "--logdir")
    assert all((tmp_path / "run" / name).read_text() == "mine" for name in files)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == len(files)


def test_a_flagfile_that_is_no_text(tmp_path, capsys):
    (tmp_path / "picture.flags").write_bytes(b"\xff\xd8\xff\xe0")
    assert in_this_process(f"--flagfile={tmp_path}/picture.flags") == 2
    assert says(message_in(capsys.readouterr().err), "--flagfile", "UTF-8")


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
    assert says(message_in(capsys.readouterr().err), model, "int", "keras.Model")


def test_ctrl_c_while_tensorflow_is_loaded(tmp_path, capsys, monkeypatch):
    def pressed(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.startup, "import_tensorflow", pressed)
    assert in_this_process(*SHORT, f"--logdir={tmp_path}/logs") == 130
    (said,) = capsys.readouterr().err.split("\n")[1:-1]
    assert says(said, "Interrupted", "TensorFlow")
    assert not (tmp_path / "logs").exists()


# What fails later.


def test_sys_exit_in_the_users_function_is_a_failed_run(tmp_path, capsys):
    line = ODD_LINES.index("    sys.exit(3)") + 1
    said = f"sys.exit(3) was called at {ODD}, line {line}"
    assert in_this_process(*SHORT, f"--model={ODD}:exits", f"--logdir={tmp_path}") == 1
    (message,) = capsys.readouterr().err.split("\n")[1:-1]
    assert says(message, said, f"--model={ODD}:exits", "exception", f"{tmp_path}/run/result.json")
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
    assert says(message, file, "sys.exit(3)", file, "line 2")


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
    assert says(said.err.splitlines()[-1], "failed", f"{tmp_path}/run/result.json")
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
    assert says(said, "failed", "collapsed", "step 2", "gradient", "/kernel'")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"].startswith("LossScaleCollapse: ") and says(result["error"], "step 2")


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
