"""What the report says to run: at its top, and commands that the trainer takes and that help."""

from __future__ import annotations

import json
import shlex

import pytest
from made_runs import rewrite, write_run

from tests.messages import says
from tfamp import report
from tfamp.reporting import advice, comparison, runs
from tfamp.reporting.figures import group_pictures
from tfamp.run.flags import config_from_arguments

ON_A_CPU = (
    ({"policy": "float32", "jit_compile": False}, "--policy=float32"),
    ({"policy": "mixed_float16", "jit_compile": True}, "--policy=mixed_float16"),
)


@pytest.fixture(autouse=True)
def started_by_a_script(monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", "scripts")


def advised(logdir, baseline="float32"):
    found, _ = runs.find(logdir, logdir / "report")
    return advice.advise(logdir, baseline, comparison.compare(found, baseline))


def write_typed(logdir, typed, name=None, **values):
    folder = write_run(logdir, name=name, **values)
    rewrite(folder / "config.json", command_line=["/x/tfamp/train.py", *typed])
    return folder


def follow(logdir, entry, **values):
    """Runs the commands, as far as their settings go."""
    for command in entry.commands:
        program, *arguments = shlex.split(command)
        assert program == "scripts/train.sh"
        config = config_from_arguments([*arguments, "--epochs=3", "--log_every=5"])
        assert not (logdir / config.run_name).exists(), "the trainer would refuse it"
        settings = {
            name: getattr(config, name)
            for name in ("policy", "seed", "jit_compile", "batch_size", "learning_rate")
        }
        write_run(logdir, name=config.run_name, **(settings | values))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_two_default_runs_on_a_cpu_are_compared_and_what_makes_them_comparable_is_said(
    seeds, tmp_path
):
    for values, policy in ON_A_CPU:
        for seed in seeds:
            typed = [policy, *([f"--seed={seed}"] if seed else [])]
            write_typed(tmp_path, typed, seed=seed, **values)
    (entry,) = advised(tmp_path)
    group = "resnet20 on fashion_mnist_mini, fit loop, with and without XLA, batch 64: "
    assert entry.why.startswith(group)
    ran = ("float32 ran without XLA", "mixed_float16 with XLA", "train float32 with XLA:")
    assert says(entry.why, "time and memory are not", *ran)
    assert entry.commands[0] == (
        "scripts/train.sh --policy=float32 --jit_compile "
        "--run_name=resnet20-fashion_mnist_mini-float32-fit-seed0-xla"
    )
    assert len(entry.commands) == len(seeds)
    follow(tmp_path, entry)
    assert advised(tmp_path) == []
    found, _ = runs.find(tmp_path, tmp_path / "report")
    first = comparison.compare(found, "float32").groups[0]
    ((_, compared),) = first.comparisons
    assert compared.is_compiled_alike and compared.step_speedup is not None


def test_the_comparison_across_compilers(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, policy="float32", jit_compile=False, seed=seed, accuracy=0.8)
        write_run(tmp_path, policy="mixed_bfloat16", jit_compile=False, seed=seed, step_ms=50.0)
        write_run(tmp_path, policy="mixed_float16", seed=seed, accuracy=0.81, step_ms=25.0)
    found, _ = runs.find(tmp_path, tmp_path / "report")
    compared = comparison.compare(found, "float32")
    assert compared.unpaired == ()
    (group,) = compared.groups
    assert "jit_compile" not in group.settings
    (mixed, across), (brain, alike) = group.comparisons
    assert (mixed.label, brain.label) == ("mixed_float16 with XLA", "mixed_bfloat16")
    assert across.accuracy_difference.value == pytest.approx(0.01)
    assert across.step_speedup is across.epoch_speedup is across.memory_ratio is None
    # What ran alike is compared as it was.
    assert alike.is_compiled_alike and alike.step_speedup.value == pytest.approx(2.0)
    assert [variant.label for variant, _ in group.unlike] == ["mixed_float16 with XLA"]


def test_a_group_with_its_own_baseline_is_left_as_it_is(tmp_path):
    for policy in ("float32", "mixed_float16"):
        for jit in (False, True):
            write_run(tmp_path, name=f"{policy}{jit}", policy=policy, jit_compile=jit)
    found, _ = runs.find(tmp_path, tmp_path / "report")
    groups = comparison.compare(found, "float32").groups
    assert [group.settings["jit_compile"] for group in groups] == [False, True]
    assert all(c.is_compiled_alike for group in groups for _, c in group.comparisons)
    assert advised(tmp_path) == []


def test_without_a_seed_in_common_compilers_are_not_mixed(tmp_path):
    write_run(tmp_path, policy="float32", jit_compile=False, seed=0)
    write_run(tmp_path, policy="mixed_float16", seed=1)
    found, _ = runs.find(tmp_path, tmp_path / "report")
    assert len(comparison.compare(found, "float32").groups) == 2


def test_a_baseline_with_xla_beside_one_that_has_none(tmp_path):
    write_typed(tmp_path, ["--policy=float32", "--jit_compile"], policy="float32")
    write_typed(tmp_path, ["--policy", "mixed_bfloat16"], policy="mixed_bfloat16",
                jit_compile=False)  # fmt: skip
    (entry,) = advised(tmp_path)
    assert entry.commands == (
        "scripts/train.sh --policy=float32 --nojit_compile "
        "--run_name=resnet20-fashion_mnist_mini-float32-fit-seed0-no_xla",
    )
    follow(tmp_path, entry)
    assert advised(tmp_path) == []


def test_a_baseline_alone(tmp_path):
    write_typed(tmp_path, ["--policy=float32", "--batch_size=32"], batch_size=32)
    (entry,) = advised(tmp_path)
    assert says(entry.why, "float32 alone", "another precision:")
    follow(tmp_path, entry)
    assert advised(tmp_path) == []


def test_no_baseline(tmp_path):
    typed = ["--policy", "mixed_float16", "--learning_rate=0.05", "--initial_loss_scale", "8",
             "--seed=3", "--run_name=mine", "--overwrite", "--nojit_compile"]  # fmt: skip
    write_typed(tmp_path, typed, name="mine", policy="mixed_float16", learning_rate=0.05,
                initial_loss_scale=8.0, seed=3, jit_compile=False)  # fmt: skip
    write_run(tmp_path, name="far", policy="float32", batch_size=8)
    found = advised(tmp_path)
    (entry,) = [entry for entry in found if "no float32 run shares" in entry.why]
    assert entry.commands == (
        "scripts/train.sh --policy=float32 --learning_rate=0.05 --seed=3 --nojit_compile",
    )
    follow(tmp_path, entry)
    assert advised(tmp_path) == []


def test_no_seed_in_common(tmp_path):
    write_typed(tmp_path, ["--policy=float32"], policy="float32", seed=0)
    write_typed(tmp_path, ["--policy=mixed_float16", "--seed=4"], policy="mixed_float16", seed=4)
    (entry,) = advised(tmp_path)
    assert entry.commands == ("scripts/train.sh --policy=float32 --seed=4 --jit_compile",)
    follow(tmp_path, entry)
    assert advised(tmp_path) == []


def test_a_run_whose_command_is_not_known_is_told_by_its_config(tmp_path):
    folder = write_run(tmp_path, policy="float32", batch_size=16, float32_layers=("a", "b"))
    rewrite(folder / "config.json", command_line=[])
    ((command,),) = [entry.commands for entry in advised(tmp_path)]
    config = config_from_arguments(shlex.split(command)[1:])
    assert (config.batch_size, config.epochs, config.float32_layers) == (16, 3, ("a", "b"))


def test_a_scale_that_was_chosen_is_chosen_again(tmp_path):
    values = {"policy": "mixed_float16", "loss_scale": "auto", "initial_loss_scale": 64.0}
    folder = write_run(tmp_path, name="auto", **values)
    rewrite(folder / "config.json", command_line=[])
    write_run(tmp_path, name="base", policy="float32", seed=1)
    commands = [c for entry in advised(tmp_path, "mixed_float16") for c in entry.commands]
    config = config_from_arguments(shlex.split(commands[0])[1:])
    assert (config.policy, config.loss_scale) == ("mixed_float16", "auto")


def test_a_script_of_the_users_is_run_again_as_it_was(tmp_path):
    folder = write_run(tmp_path, policy="float32", name="mine")
    rewrite(folder / "config.json", command_line=["/home/me/drop_in.py", "runs/mine"])
    (entry,) = advised(tmp_path)
    assert entry.commands == (
        "python drop_in.py runs/mine  # under mixed_float16, with a run directory of its own",
    )


def test_the_modules_are_named_where_no_script_started_this(tmp_path, monkeypatch):
    write_typed(tmp_path, ["--policy=float32"])
    monkeypatch.delenv("TFAMP_SCRIPTS")
    assert advised(tmp_path)[0].commands[0].startswith("python -m tfamp.train --policy=mixed_")


# Where it stands.


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take seconds, and few tests look at them."""
    monkeypatch.setattr(group_pictures, "draw", lambda group, folder: [])


def write_broken(logdir):
    (write_run(logdir, name="gone") / "result.json").unlink()


def first_lines(logdir, capsys):
    """The first lines of the console, of the Markdown, and of the page's text."""
    assert report.main([str(logdir)]) == 0
    page = (logdir / "report" / "report.html").read_text().partition("<h2")[0]
    markdown = (logdir / "report" / "report.md").read_text().partition("\n## ")[0]
    return capsys.readouterr().out, markdown, page


def test_an_empty_report_says_first_what_to_run(undrawn, tmp_path, capsys):
    logdir = tmp_path / "my runs"
    write_broken(logdir)
    command = f"scripts/sweep.sh '{logdir}' --policies=float32,mixed_float16"
    console, markdown, page = first_lines(logdir, capsys)
    lines = console.splitlines()
    assert lines[0] == "No two runs could be compared."
    assert lines[1].startswith(f"No run below {logdir} has finished")
    assert lines[2].strip() == command
    assert "No two runs could be compared." in markdown and f"\n    {command}\n" in markdown
    assert "No two runs could be compared." in page
    assert command.replace("'", "&#39;") in page


def test_a_report_that_compares_nothing_says_first_what_to_run(undrawn, tmp_path, capsys):
    write_typed(tmp_path, ["--policy=float32"])
    command = "scripts/train.sh --policy=mixed_float16 --jit_compile"
    for text in first_lines(tmp_path, capsys):
        assert command in text and "No two runs could be compared." in text
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [entry["commands"] for entry in found["next_steps"]] == [[command]]


def test_a_report_across_compilers_says_it_first_and_where_the_figures_would_stand(
    tmp_path, capsys
):
    for values, policy in ON_A_CPU:
        write_typed(tmp_path, [policy], **values)
    command = "scripts/train.sh --policy=float32 --jit_compile --run_name="
    for text in first_lines(tmp_path, capsys):
        assert command in text and "time and memory are not, as float32 ran without XLA" in text
    for name in ("report.html", "report.md"):
        # Speed and memory in the verdict; both speed-ups and memory among the figures.
        assert (tmp_path / "report" / name).read_text().count("not compared") >= 5
    pictures = (tmp_path / "report" / "report.md").read_text()
    assert "mixed_float16 with XLA was not compared: other compiler." in pictures
    assert "Not drawn: mixed_float16 with XLA (not compared: other compiler)." in pictures


def test_a_report_that_lacks_nothing_says_nothing(undrawn, tmp_path, capsys):
    write_run(tmp_path, policy="float32")
    write_run(tmp_path, policy="mixed_float16")
    console, markdown, page = first_lines(tmp_path, capsys)
    assert "scripts/" not in console + markdown + page
    assert console.startswith("resnet20 on fashion_mnist_mini")
