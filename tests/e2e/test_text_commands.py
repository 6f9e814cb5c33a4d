"""Every command of every text works as printed, right after the README's two."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import text_commands
from text_commands import ROOT

from tfamp import sweep
from tfamp.run import flags as run_flags
from tfamp.run.config import Config

sys.path.insert(0, str(ROOT / "tests" / "reporting"))
from made_runs import write_sweep

# One epoch of a model that compiles in a second.
TINY = "tests/e2e/tiny_model.py:tiny"
SHORT = (
    "--augment=none --epochs=1 --steps_per_epoch=26 --steps_per_execution=13 --log_every=13 "
    "--batch_size=50 --warmup_steps=0 --nojit_compile --overwrite"
)
COMMANDS = {command.text: command for command in text_commands.all_commands()}
TEXTS = [*COMMANDS, *text_commands.commands_with_flags()]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of commands: run with something appended, or not run, and why.

    Attributes:
        pattern: Matches the whole command.
        append: Arguments that make it quick, or that keep it off files of this checkout.
        why_not: Why it is not run.
        needs: Module, or program, without which the command's tool is not there.
        exit_codes: What it may end with.
    """

    pattern: str
    append: str = ""
    why_not: str = ""
    needs: str = ""
    exit_codes: tuple[int, ...] = (0,)


INDEX = "needs the package index"
RULES = (
    Rule(r"apt-get .*", why_not="installs into the machine"),
    Rule(r"python3 -m venv .*|\S+/bin/python -m pip .*|uv pip .*", why_not=INDEX),
    Rule(r"(cd /tmp && )?\S+/tfamp-\w+/bin/python .*", why_not=f"its environment {INDEX}"),
    Rule(r"scripts/wheel\.sh.*|python -m build .*", why_not=f"a build of its own {INDEX}"),
    Rule(r"TFAMP_EXTRAS=torch .*", why_not=INDEX),
    Rule(r"TFAMP_EXTRAS=mutation .*", why_not="minutes; tests/scripts/test_mutants.py runs it"),
    Rule(r"git tag .*", why_not="tags a release"),
    Rule(r"cp constraints\.txt .*|echo 'numpy.*", why_not="a step of remaking constraints.txt"),
    Rule(r"bash \.ci/run", why_not="runs all of this"),
    Rule(r"export TFAMP_EXTRAS=\w+"),
    # Where tfamp is installed, the modules are the commands.
    Rule(r"python -m tfamp\.train", "--helpshort"),
    Rule(r"python -m tfamp\.(sweep|report|fidelity)", "--help"),
    Rule(r"scripts/train\.sh --helpshort"),
    Rule(r"scripts/train\.sh .*--float32_layers=block3",  # Of resnet20.
         f"{SHORT} --jit_compile --steps_per_execution=1"),
    Rule(r"scripts/train\.sh .*--learning_rate=1000 .*",  # Which ends as failed.
         f"--model={TINY} --dataset=fashion_mnist_mini {SHORT}", exit_codes=(0, 1)),
    Rule(r"(TFAMP_EXTRAS=none )?scripts/train\.sh.*",
         f"--model={TINY} --dataset=fashion_mnist_mini {SHORT}"),
    Rule(r"scripts/(sweep|report)\.sh", "--help"),
    Rule(r"scripts/sweep\.sh LOGDIR --policies=float32,mixed_float16 --seeds=0,1",
         f"--models={TINY} -- {SHORT}"),
    Rule(r"scripts/sweep\.sh .*", "--dry_run"),
    Rule(r"scripts/report\.sh .*"),
    Rule(r"scripts/fidelity\.sh --run=.*",
         why_not="of a run that is there: tests/e2e/test_measured_run.py runs it"),
    Rule(r"scripts/fidelity\.sh( --model=.*)?",
         f"--model={TINY} --batch_size=4 --log2_scales=0:1 --out=fidelity"),
    Rule(r"(TFAMP_EXTRAS=profile )?scripts/tensorboard\.sh.*"),
    Rule(r"scripts/python\.sh"),
    Rule(r"scripts/python\.sh -c .*"),
    Rule(r"scripts/python\.sh experiments/benchmarks/overhead\.py.*",
         "--rounds=2 --batch_size=1 --steps=10 --policies=float32"),
    Rule(r"scripts/python\.sh experiments/benchmarks/scaler_overhead\.py.*",
         "--rounds=2 --batch_size=1 --steps=1"),
    Rule(r"scripts/python\.sh experiments/benchmarks/underflow\.py.*",
         "--rounds=2 --batch_size=1 --every=2 --loops=fit --of=weights"),
    Rule(r"scripts/python\.sh experiments/bad_batches\.py.*",
         "--ways=tfamp --streams=forty_nan --out=bad_batches.json"),
    Rule(r"scripts/python\.sh -m experiments\.loss_scaling --explain.*"),
    Rule(r"scripts/python\.sh -m experiments\.loss_scaling scalers --scalers=torch.*",
         why_not=INDEX),
    Rule(r"scripts/python\.sh -m experiments\.loss_scaling scalers.*"),
    Rule(r"scripts/python\.sh -m experiments\.loss_scaling page( --check)?", "--check"),
    Rule(r"scripts/python\.sh -m experiments\.loss_scaling (strategies|failure|claim).*",
         "--quick"),
    Rule(r"scripts/python\.sh experiments/(drop_in|scenarios/\w+)\.py.*"),
    Rule(r"scripts/python\.sh scripts/make_fashion_mnist_mini\.py", "--target=mini.npz",
         needs="/usr/share/datasets/fashion-mnist"),
    Rule(r"scripts/python\.sh -m ruff .*", needs="ruff"),
    Rule(r"scripts/python\.sh -m mypy", needs="mypy"),
    Rule(r"TFAMP_EXTRAS=dev scripts/python\.sh -m pre_commit install", needs="pre_commit"),
    Rule(r"shellcheck .*", needs="shellcheck"),
    Rule(r"scripts/test\.sh( -m gpu)?", "tests/run/test_command.py", exit_codes=(0, 5)),
    Rule(r"scripts/test\.sh .*", "--collect-only -q", exit_codes=(0, 5)),
)  # fmt: skip


def rule_of(text: str) -> Rule | None:
    """The first rule that a command falls under."""
    return next((rule for rule in RULES if re.fullmatch(rule.pattern, text)), None)


def as_typed(text: str) -> str:
    """A command with a folder for LOGDIR, and without what may be left out, such as [FLAG...]."""
    text = re.sub(r" \[[^]]*\]", "", text).strip().replace(" LOGDIR", " runs/policies")
    # Reports are made of runs that are there, sweeps start with none.
    return text.replace(" runs/", " runs/new/", 1) if "sweep.sh" in text else text


def what_runs(text: str) -> str:
    """A command with what its rule appends; a sweep has one `--` only."""
    rule, typed = rule_of(text), as_typed(text)
    if rule.append == "--dry_run":
        own, dashes, theirs = typed.partition(" -- ")
        return f"{own} --dry_run{dashes}{theirs}"
    return f"{typed} {rule.append}".strip()


# What a newcomer's suite has time for: how the commands are spelled.


def test_every_command_of_every_text_has_a_rule_and_every_rule_a_command():
    assert len(COMMANDS) > 50
    used = {rule_of(text) for text in TEXTS}
    assert [str(COMMANDS.get(text, text)) for text in TEXTS if not rule_of(text)] == []
    assert [rule.pattern for rule in RULES if rule not in used] == []


def test_readers_are_told_of_the_scripts_and_of_no_python_that_has_no_tfamp():
    of_their_own = ("BUILD.md", "CHANGELOG.md")
    for text, command in COMMANDS.items():
        if re.match(r"(\.venv/bin/)?python", text):
            assert command.where in of_their_own, command


def assert_flags_are_taken(text):
    arguments = shlex.split(text.partition("train.sh")[2])
    assert run_flags.config_from_arguments(arguments) != Config()


@pytest.mark.parametrize(
    "text", [text for text in TEXTS if re.match(r"(\w+=\w+ )*scripts/train.sh --(?!help)", text)]
)
def test_every_flag_of_a_training_command_is_taken(text, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert_flags_are_taken(text)


def test_the_command_lines_in_the_committed_report_are_taken(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = text_commands.commands_of_the_report()
    assert len(commands) == 36
    for text in commands:
        assert_flags_are_taken(text)


@pytest.mark.parametrize(
    "text", [text for text in TEXTS if re.match(r"scripts/sweep.sh [rL]", text)]
)
def test_every_sweep_is_a_matrix(text, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    typed = as_typed(text)
    assert sweep.main([*shlex.split(typed)[1:2], "--dry_run", *shlex.split(typed)[2:]]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 1


def test_the_pythons_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["readme"])
    (tmp_path / "runs").mkdir()
    blocks = text_commands.python_blocks(ROOT / "README.md")
    assert len(blocks) >= 3
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README.md, Python block {number + 1}", "exec"), names)
    assert "skipped 0" in capsys.readouterr().out
    assert names["again"].optimizer.steps_attempted == 2 * 64
    assert names["logits"].dtype == "float32"
    assert keras.config.dtype_policy().name == "mixed_float16"


# All of them, run from the root of a checkout whose environment is made.


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in a copy of the checkout, whose environment is this Python's."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("scripts", "experiments"):
        shutil.copytree(ROOT / name, root / name)
    # What the commands only read.
    files = [name for name in os.listdir(ROOT) if (ROOT / name).is_file() and name != ".git"]
    for name in ("tests", "tfamp", ".ci", *files):
        (root / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=False)
    for logdir in ("runs/policies", "runs/gpu", "runs/amp_vs_float32"):
        (root / logdir).mkdir(parents=True)
        write_sweep(root / logdir, seeds=2)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(root))} exec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    asked = "source scripts/venv.sh && _tfamp_fingerprint"
    stamp = subprocess.run(
        ["bash", "-c", asked], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    (root / ".venv" / "tfamp-environment").touch()
    (root / ".venv" / "tfamp-installed").write_text(f"{stamp.strip()}\nnone,test,dev,profile\n")
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    path = f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=root,
            env=kept | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def is_there(needed: str) -> bool:
    if needed.startswith("/"):
        return Path(needed).exists()
    return shutil.which(needed) is not None or importlib.util.find_spec(needed) is not None


def once() -> list[str]:
    """The commands that are run, less those that become the same once they are short."""
    found: dict[str, str] = {}
    for text in TEXTS:
        rule = rule_of(text)
        if rule and not rule.why_not and "tensorboard.sh" not in text:
            words = [w for w in shlex.split(what_runs(text)) if not w.startswith("--out=")]
            flags = {word.partition("=")[0]: word for word in words}
            found.setdefault(" ".join(flags.values()), text)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("text", once())
def test_it_works_as_printed(text, run):
    rule = rule_of(text)
    if rule.needs and not is_there(rule.needs):
        pytest.skip(f"needs {rule.needs}")
    done = run(what_runs(text))
    assert done.returncode in rule.exit_codes, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "installing" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for text in TEXTS if "tensorboard.sh" in text])
def test_tensorboard_starts_as_printed(text, run):
    watched = "while read -r line; do [[ $line == *' at http://'* ]] && break; done"
    started = f"exec 3< <({as_typed(text)} 2>&1); server=$!"
    done = run(f"{started}; {watched} <&3; kill $server; echo $line")
    assert " at http://127.0.0.1:" in done.stdout
