"""The command: what it hands to the measure, what it writes and says, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.short_runs import ODD, TINY
from tests.messages import says
from tests.reporting import made_fidelity
from tests.training.test_rebuild import train
from tfamp import fidelity as command
from tfamp.diagnosis import fidelity as measure
from tfamp.diagnosis import sweep
from tfamp.reporting.pages import fidelity_page
from tfamp.run.errors import InputError
from tfamp.run.fidelity import PRECISIONS, Fidelity

FILES = {"fidelity.html", "fidelity.json", "fidelity.md", "pictures"}


@dataclasses.dataclass
class Asked:
    """What the measure was asked for."""

    model: object
    loss: object
    batches: list
    more: dict


@pytest.fixture
def asked(monkeypatch):
    """Puts a stand-in in the place of the measure, and fewer pictures on the page."""
    calls = []

    def stand_in(model, loss, batches, **more):
        more.pop("progress")("passes are taken")
        calls.append(Asked(model, loss, [tuple(map(np.array, batch)) for batch in batches], more))
        return made_fidelity.one_layer()

    monkeypatch.setattr(measure, "gradient_fidelity", stand_in)
    monkeypatch.setattr(fidelity_page.fidelity_pictures, "draw", lambda *arguments: [])
    return calls


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A mixed_float16 run with weights, of a model whose file is beside it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(TINY.rpartition(":")[0], folder / "net.py")
    path, weights = train(
        folder, model=f"{folder}/net.py:tiny", policy="mixed_float16", batch_size=10, seed=3,
        augment="flip_crop", float32_layers=("conv2",), initial_loss_scale=512.0,
    )  # fmt: skip
    return path, weights


def written(out):
    return Fidelity.read(out / "fidelity.json")


def test_of_a_model_as_it_begins(asked, tmp_path, capsys):
    arguments = [
        f"--model={TINY}", "--batch_size=6", "--num_batches=2", "--log2_scales=-3:5", "--seed=4",
        "--precisions=mixed_float16,float32", f"--out={tmp_path}/out",
    ]  # fmt: skip
    assert command.main(arguments) == 0
    (call,) = asked
    assert call.loss is None and call.model.name == "tiny"
    assert call.more == {
        "precisions": ("mixed_float16", "float32"),
        "log2_scales": range(-3, 6),
        "seed": 4,
        "jit_compile": False,
    }
    assert [inputs.shape for inputs, _ in call.batches] == 2 * [(6, 28, 28, 1)]
    found = written(tmp_path / "out")
    made = made_fidelity.one_layer()
    assert (found.model, found.dataset) == (TINY, "fashion_mnist_mini")
    assert list(found.command_line[1:]) == arguments
    assert found.settled_log2_scale is None
    assert (found.precisions, found.layers) == (made.precisions, made.layers)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES - {"pictures"}
    said = capsys.readouterr().out
    assert says(said, TINY, "2 batches of 6", "without XLA", "mixed_float16", "float64")
    assert says(said, f"{tmp_path}/out/fidelity.html")


def test_of_a_run(asked, trained, capsys):
    run, weights = trained
    assert command.main([f"--run={run}", "--jit_compile"]) == 0
    (call,) = asked
    assert call.more["jit_compile"] is True and call.more["seed"] == 3
    for weight in call.model.weights:
        np.testing.assert_array_equal(np.array(weight.value), weights[weight.path])
    # As training saw the first batch, and with its own layers in float32.
    assert call.batches[0][0].shape == (10, 28, 28, 1)
    assert call.model.get_layer("conv2").compute_dtype == "float32"
    assert call.model.get_layer("conv1").compute_dtype == "float16"
    found = written(run / "fidelity")
    assert found.settled_log2_scale == 9.0
    assert found.model == f"{run.parent}/net.py:tiny"
    (events,) = (run / "train").glob("*.fidelity.tfamp")
    assert events.stat().st_size > 0
    assert says(capsys.readouterr().out, "with XLA", f"{run}/fidelity/fidelity.html", "TensorBoard")
    # Once more, in the same place; and elsewhere.
    assert command.main([f"--run={run}", f"--out={run}/other", "--batch_size=4"]) == 0
    assert asked[1].batches[0][0].shape == (4, 28, 28, 1)
    assert says(" ".join(written(run / "other").limits), "--batch_size=4", "--batch_size=10")


def refused(capsys, *arguments):
    """The one message of a refusal."""
    assert command.main(arguments) == 2
    message, more = capsys.readouterr().err.splitlines()
    assert says(more, "--helpshort")
    return message.removeprefix("tfamp: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", ("--out", "--run", "--out=fidelity")),
        ("--out=", ("--out=", "folder")),
        ("--policy=mixed_float16", ("--policy", "no effect", "--precisions")),
        ("--epochs=3", ("--epochs", "no effect", "nothing is trained")),
        ("--loss_scale=8", ("--loss_scale", "no effect", "--log2_scales")),
        ("--nosave_model", ("--save_model", "no effect", "--out")),
        ("--precision=float32", ("flag 'precision'", "precisions")),
        ("--precisions=float16", ("precision 'float16'", "--precisions", "mixed_float16")),
        ("--precisions=", ("precision ''", "--precisions")),
        ("--log2_scales=24", ("--log2_scales=24", "A:B")),
        ("--log2_scales=24:0", ("--log2_scales=24:0", "--log2_scales=0:24")),
        ("--log2_scales=0:101", ("--log2_scales=0:101", "from -100 to 100")),
        (
            "--log2_scales=0:9 --precisions=float32",
            ("--log2_scales", "--precisions=float32", "mixed_float16"),
        ),
        ("--num_batches=0", ("--num_batches=0", 1)),
        ("--model=resnet21", ("'resnet21'", "'resnet20'", "--model")),
        ("--model=gone.py:net", ("gone.py", "not exist")),
        ("--run=/gone", ("--run=/gone", "no such folder")),
        ("run", ("'run'", "--flag=value")),
    ],
)
def test_bad_input_that_needs_no_tensorflow(arguments, told, asked, tmp_path, capsys):
    given = arguments.split()
    if arguments and "--out" not in arguments:
        given.append(f"--out={tmp_path}/out")
    assert says(refused(capsys, *given), *told)
    assert not asked and not (tmp_path / "out").exists()


def test_a_folder_with_foreign_files(asked, tmp_path, capsys):
    (tmp_path / "fidelity.html").write_text("mine")
    assert says(refused(capsys, f"--out={tmp_path}"), f"{tmp_path}/fidelity.html", "--out")
    assert (tmp_path / "fidelity.html").read_text() == "mine" and not asked
    assert says(refused(capsys, f"--out={tmp_path}/fidelity.html/a"), "file", "--out")


def test_more_batches_than_an_epoch_has(asked, tmp_path, capsys):
    arguments = (f"--model={TINY}", "--batch_size=1000", f"--out={tmp_path}/out")
    message = refused(capsys, *arguments, "--num_batches=6")
    assert says(message, "--num_batches=6", 5, "1000", "--batch_size")
    assert not asked


def test_what_the_measure_refuses_is_bad_input(monkeypatch, tmp_path, capsys):
    def refuse(*arguments, **more):
        raise InputError("The loss is nan in float64 too.")

    monkeypatch.setattr(measure, "gradient_fidelity", refuse)
    arguments = (f"--model={TINY}", "--batch_size=4", f"--out={tmp_path}/out")
    assert "float64" in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "told"), [(KeyError("seven"), "seven"), (SystemExit(7), "sys.exit(7)")]
)
def test_what_fails_says_so(error, told, monkeypatch, tmp_path, capsys):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(measure, "gradient_fidelity", fail)
    arguments = (f"--model={TINY}", "--batch_size=4", f"--out={tmp_path}/out")
    assert command.main(arguments) == 1
    said = capsys.readouterr().err
    assert told in said and says(said.lower(), "nothing was written")
    assert not (tmp_path / "out").exists()


def test_a_step_of_the_models_own_is_told(asked, tmp_path):
    model = f"{ODD}:adds_a_thousand"
    assert command.main([f"--model={model}", "--batch_size=4", f"--out={tmp_path}"]) == 0
    assert says(" ".join(written(tmp_path).limits), model, "train_step", "another")


def test_weights_in_a_run_that_cannot_be_used_leave_everything(asked, trained, tmp_path, capsys):
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    shutil.rmtree(run / "fidelity", ignore_errors=True)
    assert says(refused(capsys, f"--run={run}", "--model=resnet20"), "--model=resnet20", "net.py")
    (run / "final.weights.h5").write_text("no HDF5")
    assert says(refused(capsys, f"--run={run}"), f"{run}/final.weights.h5")
    (run / "final.weights.h5").unlink()
    assert says(refused(capsys, f"--run={run}"), f"--run={run}", "final.weights.h5")
    assert not asked and not (run / "fidelity").exists()


def test_help_needs_no_tensorflow():
    code = (
        "import sys\nfor name in ('tensorflow', 'keras'):\n    sys.modules[name] = None\n"
        "from tfamp import fidelity\nsys.exit(fidelity.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--helpshort"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--run", "--out", "--num_batches", "--log2_scales", "--model", "--[no]tf32"):
        assert f"  {flag}:" in done.stdout
    assert "0:24" in done.stdout and "--epochs" not in done.stdout


def test_json_is_whole(asked, tmp_path):
    assert command.main([f"--model={TINY}", "--batch_size=4", f"--out={tmp_path}"]) == 0
    value = json.loads((tmp_path / "fidelity.json").read_text())
    assert value["written_by"] == "tfamp" and value["reference"] == "float64"


def test_the_precisions_that_are_offered_are_those_that_are_measured():
    assert tuple(sweep.DTYPES) == PRECISIONS
