"""Which runs are compared: a user's model counts by its content, older runs by what they have."""

import json

import pytest
from made_runs import rewrite, write_run

from tests.messages import says
from tfamp.reporting import comparison, runs

MINE = "somewhere/mine.py:build"
OLD, NEW = {"mine.py": "a" * 64}, {"mine.py": "b" * 64}


def compare(logdir, baseline="float32"):
    found, _ = runs.find(logdir, logdir / "report")
    return comparison.compare(found, baseline)


def reasons(compared):
    return {entry.directory: entry.why for entry in compared.unpaired}


def write_pair(logdir, base, other):
    write_run(logdir, name="base", policy="float32", **({"model": MINE} | base))
    write_run(logdir, name="other", policy="mixed_bfloat16", **({"model": MINE} | other))
    return compare(logdir)


def is_paired(compared):
    return [len(group.comparisons) for group in compared.groups] == [1]


def test_the_same_content_is_one_model(tmp_path):
    assert is_paired(write_pair(tmp_path, {"model_sha256": NEW}, {"model_sha256": NEW}))


def test_another_content_is_another_model(tmp_path):
    compared = write_pair(tmp_path, {"model_sha256": OLD}, {"model_sha256": NEW})
    assert len(compared.groups) == 2 and not any(g.comparisons for g in compared.groups)
    content = "content of mine.py (sha256 bbbbbbbbbbbb here, sha256 aaaaaaaaaaaa there)."
    assert says(reasons(compared)["other"], "float32", "nearest, base", content)


def test_a_file_beside_it_counts_and_one_that_came_or_went(tmp_path):
    there = {"mine.py": "a" * 64, "blocks.py": "c" * 64}
    here = {"mine.py": "a" * 64, "layers/own.py": "d" * 64}
    why = reasons(write_pair(tmp_path, {"model_sha256": there}, {"model_sha256": here}))["other"]
    assert "the content of blocks.py (no such file here, sha256 cccccccccccc there)" in why
    assert "the content of layers/own.py (sha256 dddddddddddd here, no such file there)" in why
    assert "mine.py (" not in why


@pytest.mark.parametrize("model", [MINE, "resnet20"])
def test_another_number_of_parameters_is_another_model(model, tmp_path):
    compared = write_pair(
        tmp_path,
        {"model": model, "trainable_parameters": 13_610},
        {"model": model, "trainable_parameters": 408_990},
    )
    assert not any(group.comparisons for group in compared.groups)
    assert "trainable parameters (408,990 here, 13,610 there)" in reasons(compared)["other"]


def test_an_older_run_without_the_content_goes_by_its_parameters(tmp_path):
    assert is_paired(write_pair(tmp_path, {}, {"model_sha256": NEW}))
    assert is_paired(write_pair(tmp_path / "both", {}, {}))
    # And without either it is taken for what it says it is.
    assert is_paired(
        write_pair(tmp_path / "neither", {"trainable_parameters": None}, {"model_sha256": NEW})
    )
    assert reasons(compare(tmp_path / "neither")) == {}


def test_what_no_run_recorded_is_no_setting(tmp_path):
    (group,) = write_pair(tmp_path, {}, {}).groups
    assert "model_sha256" not in group.settings
    assert group.settings["trainable_parameters"] == 1000


def test_an_older_run_of_two_possible_contents_is_paired_with_neither(tmp_path):
    compared = write_pair(tmp_path, {}, {"model_sha256": NEW})
    write_run(tmp_path, name="third", policy="mixed_float16", model=MINE, model_sha256=OLD)
    compared = compare(tmp_path)
    assert not any(group.comparisons for group in compared.groups)
    assert "the model's content (recorded here, not recorded there)" in reasons(compared)["other"]


def test_the_parameters_tell_which_content_an_older_run_had(tmp_path):
    write_run(tmp_path, name="old", policy="float32", model=MINE, trainable_parameters=7)
    write_run(tmp_path, name="a", policy="mixed_float16", model=MINE, trainable_parameters=7,
              model_sha256=OLD)  # fmt: skip
    write_run(tmp_path, name="b", policy="mixed_bfloat16", model=MINE, trainable_parameters=8,
              model_sha256=NEW)  # fmt: skip
    compared = compare(tmp_path)
    assert [[run.directory for run in group.runs] for group in compared.groups] == [
        ["old", "a"],
        ["b"],
    ]


@pytest.mark.parametrize("content", [3, [], {"mine.py": 3}])
def test_a_content_that_is_none_is_as_if_absent(content, tmp_path):
    write_run(tmp_path, name="base", policy="float32", model=MINE)
    rewrite(tmp_path / "base" / "config.json", model_sha256=content)
    write_run(tmp_path, name="other", policy="mixed_bfloat16", model=MINE)
    assert is_paired(compare(tmp_path))


def change_config(folder, **changes):
    record = json.loads((folder / "config.json").read_text())
    config = record["config"] | changes
    record["config"] = {name: value for name, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(record))


def test_a_setting_that_an_older_run_did_not_know_has_its_default(tmp_path):
    folder = write_run(tmp_path, name="base", policy="float32")
    change_config(folder, ema_momentum=..., label_smoothing=..., max_skipped_in_a_row=...)
    write_run(tmp_path, name="other", policy="mixed_float16")
    compared = compare(tmp_path)
    assert is_paired(compared)
    assert compared.groups[0].variants[1].label == "mixed_float16"


def test_no_bound_on_skips_was_an_older_runs_default(tmp_path):
    for seed in (0, 1):
        folder = write_run(tmp_path, name=f"m{seed}", policy="mixed_float16", seed=seed)
        if seed == 0:
            change_config(folder, max_skipped_in_a_row=None, stop_on_non_finite=...)
    (group,) = compare(tmp_path, "mixed_float16").groups
    assert [len(variant.runs) for variant in group.variants] == [2]


def test_what_changes_no_number_keeps_no_runs_apart(tmp_path):
    for name, policy, value in (("a", "float32", True), ("b", "mixed_float16", False)):
        folder = write_run(tmp_path, name=name, policy=policy)
        change_config(folder, save_model=value, save_best=not value, stop_on_non_finite=value)
    assert is_paired(compare(tmp_path))
