"""The page tells what the committed results say; its command says so, and where it does not."""

import json
import re
from pathlib import Path

import pytest

from experiments.loss_scaling import page, told_steps
from experiments.loss_scaling.__main__ import PARTS
from experiments.loss_scaling.steps import LOGDIR, RESULTS, STEPS, Step
from tests.messages import says
from tfamp.run import flags as run_flags

ROOT = Path(__file__).parents[3]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The page, and the README, in a folder of its own."""
    (tmp_path / "experiments").mkdir()
    for name in ("PAGE", "README"):
        text = tmp_path / "experiments" / getattr(page, name).name
        text.write_text(getattr(page, name).read_text())
        monkeypatch.setattr(page, name, text)
    monkeypatch.setattr(page, "ROOT", tmp_path)
    return page.PAGE


def test_the_page_tells_what_the_results_say(capsys):
    assert page.main(["--check"]) == 0
    told = capsys.readouterr().out
    assert says(told, "experiments/loss_scaling.md", len(page.values()), "experiments/README.md", 2)


def test_a_number_that_no_result_says_fails(copy, capsys):
    told = "<!--= scalers.keras.zero_after -->142<!--/-->"
    text = copy.read_text()
    assert text.count(told) == 1
    copy.write_text(text.replace(told, told.replace("142", "141")))
    assert page.main(["--check"]) == 1
    assert says(capsys.readouterr().err, "loss_scaling.md", "scalers.keras.zero_after", 142, 141)


def test_minutes_that_were_not_measured_fail(copy, capsys):
    text = page.README.read_text()
    page.README.write_text(text.replace("exercise1.minutes -->", "exercise1.minutes -->1"))
    assert page.main(["--check"]) == 1
    assert says(capsys.readouterr().err, "README.md", "exercise1.minutes")


def test_a_result_that_changes_fails_and_is_written_anew(copy, monkeypatch, capsys):
    results = page.told_scalers.results()
    results["never_finite"]["keras"]["last_move"] = 7
    monkeypatch.setattr(page.told_scalers, "results", lambda: results)
    assert page.main(["--check"]) == 1
    assert says(capsys.readouterr().err, "scalers.table", "step 7", "step 142")
    monkeypatch.setattr(page, "remake", lambda names: [])
    assert page.main([]) == 1
    assert page.main(["--write"]) == 0
    assert "-->7<!--" in copy.read_text() and page.main(["--check"]) == 0


def test_a_result_that_is_not_there_is_named(copy, monkeypatch, capsys):
    monkeypatch.setattr(told_steps, "DURATIONS", Path("absent.json"))
    assert page.main(["--check"]) == 1
    assert says(capsys.readouterr().err, "steps.commands", "absent.json")


def test_remaking_runs_what_it_can_and_notes_the_time(tmp_path, copy, monkeypatch, capsys):
    durations = tmp_path / "durations.json"
    durations.write_text(json.dumps({"scalers": 3.0, "gone": 1.0}))
    monkeypatch.setattr(told_steps, "DURATIONS", durations)
    monkeypatch.setitem(STEPS, "train_resnet20", Step("scripts/python.sh -c print(1)", "x"))
    monkeypatch.setitem(
        STEPS, "train_vit_tiny", Step("scripts/python.sh -c 1/0", "y", needs="no_such_module")
    )
    assert page.main(["--only=train_resnet20,train_vit_tiny"]) == 1  # The text has no such step.
    told = capsys.readouterr().out
    assert says(
        told, "train_resnet20:", "print(1)", "train_vit_tiny was left out", "no_such_module"
    )
    noted = json.loads(durations.read_text())
    assert list(noted) == ["train_resnet20", "scalers"] and noted["scalers"] == 3.0


def test_no_folder_of_this_machine_is_left_in_a_result(tmp_path, copy, monkeypatch):
    monkeypatch.setattr(told_steps, "DURATIONS", tmp_path / "durations.json")
    out = tmp_path / "made" / "one.json"
    out.parent.mkdir()
    out.write_text(json.dumps({"command_line": [f"{tmp_path}/tfamp/fidelity.py"]}))
    monkeypatch.setitem(STEPS, "scalers", Step("scripts/python.sh -c 1", "made/one.json"))
    page.main(["--only=scalers"])
    assert json.loads(out.read_text()) == {"command_line": ["tfamp/fidelity.py"]}


def test_a_command_that_fails_ends_it(copy, monkeypatch, capsys):
    monkeypatch.setitem(STEPS, "scalers", Step("scripts/python.sh -c exit(5)", "x"))
    assert page.main(["--only=scalers"]) == 1
    assert says(capsys.readouterr().err, "scalers", 5, "exit(5)")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--only=scaler_torch",), ("'scaler_torch'", "'scalers_torch'", "--only")),
        (("--check", "--only=scalers"), ("--check", "--only")),
        (("--check", "--write"), ("--check", "--write")),
    ],
)
def test_bad_input_is_one_message(arguments, expected, capsys):
    assert page.main(arguments) == 2
    told = capsys.readouterr()
    assert says(told.err.splitlines()[0], "tfamp:", *expected) and not told.out


def test_the_training_commands_are_taken(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, step in STEPS.items():
        if name.startswith("train_"):
            config = run_flags.config_from_arguments(step.arguments[3:])
            assert f"{config.logdir}/{config.run_name}" == step.makes
            assert (config.policy, config.model) == ("mixed_float16", config.run_name)
            assert config.logdir == LOGDIR


def test_every_result_is_made_by_a_command():
    made = {step.makes for step in STEPS.values()}
    made |= {f"{RESULTS}/{part}.json" for part in PARTS}
    for path in (ROOT / RESULTS).rglob("*.json"):
        name = path.relative_to(ROOT).as_posix()
        assert path == told_steps.DURATIONS or name in made, name


def test_every_command_of_the_page_is_one_of_its_steps():
    commands = {step.command for step in STEPS.values()}
    blocks = re.findall(r"```bash\n(.*?)```", page.PAGE.read_text(), re.DOTALL)
    for text in "".join(blocks).replace("\\\n    ", "").splitlines():
        is_quick = text.startswith(
            ("scripts/python.sh -m experiments.loss_scaling --explain",
             "scripts/python.sh -m experiments.loss_scaling page --check")
        )  # fmt: skip
        assert is_quick or text in commands, text
