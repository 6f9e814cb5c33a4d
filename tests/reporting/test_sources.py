"""Where the numbers come from."""

import pytest
from made_runs import VERSIONS, write_run

from tfamp.reporting import comparison, runs, sources


def test_where_the_scripts_are_used_a_report_names_them(monkeypatch):
    monkeypatch.setenv("TFAMP_SCRIPTS", "/home/me/tfamp/scripts")
    typed = ["/home/me/tfamp/train.py", "--policy=float32"]
    assert sources.command(typed) == "scripts/train.sh --policy=float32"
    typed = ["/home/me/tfamp/fidelity.py", "--out=x"]
    assert sources.command(typed) == "scripts/fidelity.sh --out=x"


@pytest.mark.parametrize("arguments", [None, [], "train.py", 3])
def test_a_command_line_that_is_none(arguments):
    assert sources.command(arguments) is None


def test_what_is_collected(tmp_path):
    for seed in (0, 1):
        for policy in ("float32", "mixed_bfloat16"):
            write_run(tmp_path, policy=policy, seed=seed, device="GPU:0 (NVIDIA H200)")
    found, _ = runs.find(tmp_path, tmp_path / "report")
    compared = comparison.compare(found, "float32")
    assert sources.collect(tmp_path, compared) == {
        "versions": {name: [version] for name, version in VERSIONS.items()},
        "devices": ["GPU:0 (NVIDIA H200)"],
        "git_revisions": ["a" * 40],
        "seeds": [0, 1],
        "sweeps": [],
        "commands": {
            f"resnet20-fashion_mnist_mini-{policy}-fit-seed{seed}": (
                f"python -m tfamp.train --policy={policy} --seed={seed}"
            )
            for policy in ("float32", "mixed_bfloat16")
            for seed in (0, 1)
        },
    }


def test_a_command_of_the_users_own():
    assert sources.command(["/home/me/drop_in.py", "runs/a b"]) == "python drop_in.py 'runs/a b'"
    assert sources.command(["/x/tfamp/train.py", "--seed=1"]) == "python -m tfamp.train --seed=1"
    assert sources.command(["/usr/bin/tool"]) == "tool"
