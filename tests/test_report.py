"""The command: what it writes and says, what it refuses, and what it does not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.messages import says
from tests.reporting.made_runs import write_run, write_sweep
from tfamp import report
from tfamp.reporting.figures import group_pictures

FILES = {"report.html", "report.json", "report.md"}

# None in sys.modules makes the import of a package fail, as where it is not installed.
WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "keras", "keras_cv", "tensorboard", "tensorflow_datasets"):
    sys.modules[name] = None
from tfamp import report
sys.exit(report.main(sys.argv[1:]))
"""


def write_pair(logdir):
    """The least that makes a comparison; a report of a whole sweep draws for seconds."""
    for policy in ("float32", "mixed_bfloat16"):
        write_run(logdir, policy=policy)


def test_it_needs_no_tensorflow(tmp_path):
    write_pair(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(report.__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert {path.name for path in (tmp_path / "report").iterdir()} >= FILES


def test_what_it_writes_and_says(tmp_path, capsys):
    write_sweep(tmp_path, seeds=3)
    (write_run(tmp_path, name="gone", policy="float16") / "result.json").unlink()
    assert report.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "report"
    found = json.loads((folder / "report.json").read_text())
    for group in found["groups"]:
        for variant in group["variants"]:
            for sentence in variant["verdict"] or []:
                assert sentence in said
    assert "gone" in said
    assert str(folder / "report.html") in said
    pictures = list(folder.rglob("*.png"))
    assert len(pictures) >= 4 * len(found["groups"])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


@pytest.mark.parametrize(
    "name", ["report.md", "report.html", "report.json", "pictures/group1/cost.png", "pictures"]
)
def test_files_that_no_report_wrote_are_refused_and_left(name, tmp_path, capsys):
    write_pair(tmp_path / "runs")
    if name.endswith(".png"):
        name = f"pictures/group1/{group_pictures.FILES[0]}"
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text('{"mine": 1}')
    before = sorted((tmp_path / "mine").rglob("*"))
    assert report.main([str(tmp_path / "runs"), f"--out={tmp_path / 'mine'}"]) == 2
    said = capsys.readouterr().err
    assert str(mine) in said and "--out" in said
    assert sorted((tmp_path / "mine").rglob("*")) == before
    assert mine.read_text() == '{"mine": 1}'


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take seconds, and few tests look at them."""
    monkeypatch.setattr(group_pictures, "draw", lambda group, folder: [])


def test_a_second_report_replaces_the_first_and_reads_the_same_runs(undrawn, tmp_path):
    write_pair(tmp_path)
    assert report.main([str(tmp_path)]) == 0
    first = (tmp_path / "report" / "report.json").read_text()
    assert report.main([str(tmp_path)]) == 0
    assert (tmp_path / "report" / "report.json").read_text() == first
    assert json.loads(first)["passed_over"] == []


def test_out_and_baseline(undrawn, tmp_path):
    write_pair(tmp_path / "runs")
    out = tmp_path / "elsewhere" / "deep"
    arguments = [str(tmp_path / "runs"), "--baseline=mixed_bfloat16", f"--out={out}"]
    assert report.main(arguments) == 0
    assert not (tmp_path / "runs" / "report").exists()
    found = json.loads((out / "report.json").read_text())
    assert {group["baseline"] for group in found["groups"]} == {"mixed_bfloat16"}


def test_only_broken_runs_still_make_a_report(tmp_path, capsys):
    (write_run(tmp_path, name="gone") / "result.json").unlink()
    assert report.main([str(tmp_path)]) == 0
    assert "gone" in capsys.readouterr().out
    assert "gone" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/absent"], ("/absent", "no folder", "LOGDIR")),
        (["{}/empty"], ("/empty", "no runs", "--logdir")),
        (["{}/runs", "--baseline=float16"], ("--baseline=float16", "float32", "--baseline")),
        (["{}/runs", "--baseline=flot32"], ("baseline 'flot32'", "'float32'")),
        (["{}/runs", "--out={}/runs/a/result.json"], ("/runs/a/result.json", "--out")),
    ],
)
def test_bad_input_is_refused(arguments, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "runs", name="a")
    assert report.main([argument.format(tmp_path) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tfamp: ") and says(said, *message)
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--nonsense"]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    assert report.main(arguments) == 2
    said, more = capsys.readouterr().err.splitlines()
    assert said.startswith("tfamp: ") and says(more, "--helpshort")
