from __future__ import annotations

import collections
import sys

import pytest

from tests.messages import naming, says
from tfamp.run.config import Config
from tfamp.run.errors import InputError
from tfamp.run.flags import config_from_arguments
from tfamp.run.resolve import resolve
from tfamp.sweeping import cells as cells_lib
from tfamp.sweeping.matrix import as_option

TWO = {"policies": ("float32", "mixed_float16")}
ONE = {"policies": ("float32",)}


def short(cell):
    config = cell.config
    scale = "" if config.loss_scale == "dynamic" else f" {config.loss_scale}"
    return f"{config.seed} {config.model} {config.loop} {config.policy}{scale}"


def test_the_order(make):
    cells = make(
        policies=("float32", "mixed_float16", "bfloat16"),
        models=("resnet20", "vit_tiny"),
        loops=("fit", "custom"),
        seeds=(5, 1),
        loss_scales=("dynamic", "none"),
    )
    a, b, c, d = "float32", "mixed_float16", "mixed_float16 none", "bfloat16"
    # A group of policies begins one later than the group before, and each seed one later too.
    assert [short(cell) for cell in cells] == [
        f"{seed} {group} {variant}"
        for seed, group, variants in [
            (5, "resnet20 fit", (a, b, c, d)),
            (5, "resnet20 custom", (b, c, d, a)),
            (5, "vit_tiny fit", (c, d, a, b)),
            (5, "vit_tiny custom", (d, a, b, c)),
            (1, "resnet20 fit", (b, c, d, a)),
            (1, "resnet20 custom", (c, d, a, b)),
            (1, "vit_tiny fit", (d, a, b, c)),
            (1, "vit_tiny custom", (a, b, c, d)),
        ]
        for variant in variants
    ]


def test_no_policy_is_always_first(make):
    cells = make(**TWO, loops=("fit", "custom"), seeds=(0, 1, 2, 3))
    first = collections.Counter((cell.config.loop, cell.config.policy) for cell in cells[::2])
    assert set(first.values()) == {2} and len(first) == 4


def test_names(make):
    cells = make(**TWO, loss_scales=("dynamic", "none", "1024", "1e+20"))
    assert [cell.name for cell in cells] == [
        "resnet20-fashion_mnist_mini-float32-fit-seed0",
        "resnet20-fashion_mnist_mini-mixed_float16-fit-seed0",
        "resnet20-fashion_mnist_mini-mixed_float16-fit-seed0-loss_scale_none",
        "resnet20-fashion_mnist_mini-mixed_float16-fit-seed0-loss_scale_1024",
        "resnet20-fashion_mnist_mini-mixed_float16-fit-seed0-loss_scale_1e_20",
    ]


def test_the_command(make, tmp_path):
    _, cell = make("--epochs=3", **TWO, loss_scales=("none",), seeds=(7,), loops=("custom",))
    assert cell.command() == [
        sys.executable,
        "-m",
        "tfamp.train",
        "--epochs=3",
        "--jit_compile",
        "--policy=mixed_float16",
        "--model=resnet20",
        "--dataset=fashion_mnist_mini",
        "--loop=custom",
        "--seed=7",
        "--loss_scale=none",
        f"--logdir={tmp_path}/runs",
        "--run_name=resnet20-fashion_mnist_mini-mixed_float16-custom-seed7-loss_scale_none",
    ]
    # What the trainer makes of it, by way of the rules of a config alone.
    assert cell.config == resolve(
        Config(
            policy="mixed_float16",
            loss_scale="none",
            loop="custom",
            seed=7,
            epochs=3,
            jit_compile=True,
            logdir=f"{tmp_path}/runs",
            run_name=cell.name,
        )
    )
    assert cell.config == config_from_arguments(cell.arguments)
    assert cell.directory.path == tmp_path / "runs" / cell.name


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ([], True),
        (["--jit_compile"], True),
        (["--nojit_compile"], False),
        (["--jit_compile=off"], False),
        (["-nojit_compile"], False),
        (["--jit_compile=1"], True),
    ],
)
def test_xla_is_the_same_in_every_cell(given, value, make):
    cells = make(*given, **TWO)
    assert [cell.config.jit_compile for cell in cells] == [value, value]
    assert cells_lib.gives_jit_compile(given) is bool(given)
    assert [cell.arguments.count("--jit_compile") for cell in cells] == 2 * [
        0 if given and given != ["--jit_compile"] else 1
    ]


def test_a_cell_wins_over_a_flagfile(make, tmp_path):
    file = tmp_path / "run.flags"
    file.write_text(
        "--policy=float16\n--loss_scale=8\n--seed=4\n--model=vit_tiny\n--nojit_compile\n"
        "--run_name=mine\n--logdir=elsewhere\n--epochs=2\n"
    )
    (cell,) = make(f"--flagfile={file}", **ONE)
    config = cell.config
    assert (config.policy, config.loss_scale, config.seed) == ("float32", "dynamic", 0)
    assert (config.model, config.jit_compile, config.epochs) == ("resnet20", False, 2)
    assert config.logdir == f"{tmp_path}/runs"
    assert config.run_name == "resnet20-fashion_mnist_mini-float32-fit-seed0"


# But for the number.
ONE_NAME = "resnet20-fashion_mnist_mini-float32-fit-seed"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"datasets": ("fashion mnist",)}, ("'fashion mnist'", "'fashion_mnist'", "--datasets")),
        ({"seeds": (2**32,)}, (f"{ONE_NAME}4294967296", "--seed=4294967296", 0, 4294967295)),
        (
            {"policies": ("float16",), "loss_scales": ("1e+39",)},
            ("--loss_scale=1e+39", "'dynamic'", "'none'", "number"),
        ),
    ],
)
def test_a_value_that_the_trainer_would_refuse(axes, message, make):
    with pytest.raises(InputError) as raised:
        make(**axes)
    assert says(raised.value.told(as_option), *message)


@pytest.mark.parametrize(
    ("train_flag", "message"),
    [
        ("--epochs=0", (f"{ONE_NAME}0", "--epochs=0", 1)),
        (
            "--initial_loss_scale=1e9",
            (
                ONE_NAME.replace("float32", "mixed_float16") + "0",
                *("--initial_loss_scale=1e+09", "--max_loss_scale="),
            ),
        ),
        ("--profile_steps=3,2", ("--profile_steps=3,2", "first", "last")),
        ("--flagfile=/absent.flags", ("flagfile", "'/absent.flags'")),
    ],
)
def test_a_cell_that_the_trainer_would_refuse(train_flag, message, make):
    with pytest.raises(InputError) as raised:
        make(train_flag, **TWO)
    assert says(raised.value.told(as_option), *message)


SHAPING = ("--initial_loss_scale=8", "--max_skipped_in_a_row", "9")


@pytest.mark.parametrize("in_a_file", [False, True])
def test_flags_of_a_loss_scale_reach_the_cells_that_have_one(in_a_file, make, tmp_path):
    given = (
        *SHAPING,
        "--epochs=2",
        "--profile_steps=2,3",
        "--float32_layers=a,b",
        "--nojit_compile",
    )
    if in_a_file:
        (tmp_path / "run.flags").write_text(
            "\n".join(" ".join(given).replace("row 9", "row=9").split())
        )
        given = (f"--flagfile={tmp_path}/run.flags",)
    cells = make(*given, policies=("float32", "float16"), loss_scales=("dynamic", "none", "8"))
    found = {
        cell.name.rpartition("seed0")[2] or cell.config.policy: (
            cell.config.initial_loss_scale,
            cell.config.max_skipped_in_a_row,
        )
        for cell in cells
    }
    assert found == {
        "float32": (2.0**15, 200),
        "float16": (8.0, 9),
        "-loss_scale_none": (2.0**15, 200),
        "-loss_scale_8": (2.0**15, 9),
    }
    for cell in cells:
        assert cell.config.epochs == 2 and cell.config.jit_compile is False
        assert cell.config.profile_steps == (2, 3) and cell.config.float32_layers == ("a", "b")


@pytest.mark.parametrize(
    ("axes", "flag"),
    [
        ({"policies": ("float32", "bfloat16")}, "--initial_loss_scale=8"),
        ({"policies": ("float16",), "loss_scales": ("none",)}, "--max_skipped_in_a_row=9"),
        ({"policies": ("float16",), "loss_scales": ("8",)}, "--min_loss_scale=1"),
    ],
)
def test_flags_of_a_loss_scale_that_no_cell_has(axes, flag, make):
    name = flag.partition("=")[0]
    with pytest.raises(InputError, match=naming(name, "'--'", "no cell", "--policies")):
        make(flag, **axes)


def test_two_cells_of_one_name(make):
    with pytest.raises(InputError, match=naming("a/b.py:net", "a_b.py:net", "a_b")):
        make(**ONE, models=("a/b.py:net", "a_b.py:net"))


def test_finished_runs_of_another_config_are_refused_unless_overwritten(make, finish):
    cells = make(**TWO, loops=("fit", "custom"))
    finish(cells[0])
    cells_lib.check_on_disk(cells, overwrite=False)
    finish(cells[1], epochs=9, steps_per_epoch=4, command_line=("t", "--steps_per_epoch=4"))
    with pytest.raises(InputError) as raised:
        cells_lib.check_on_disk(cells, overwrite=False)
    message = str(raised.value)
    differences = ("epochs 9 there and 5 here", "steps_per_epoch 4 there and left open here")
    assert says(message, cells[1].directory.path, *differences, "LOGDIR", "'-- --overwrite'")
    assert str(cells[0].directory.path) not in message
    cells_lib.check_on_disk(cells, overwrite=True)


def test_a_folder_of_somebody_elses_is_refused_in_the_sweeps_words(make):
    cell = make(**TWO)[0]
    (cell.directory.path / "train").mkdir(parents=True)
    (cell.directory.path / "train" / "1.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError) as raised:
            cells_lib.check_on_disk([cell], overwrite=overwrite)
        message = raised.value.told(as_option)
        assert says(message, "train/1.jpg", "LOGDIR") and "--overwrite" not in message


def test_many_conflicts_are_counted(make, finish):
    cells = make(**TWO, loops=("fit", "custom"), seeds=(0, 1))
    for cell in cells[:5]:
        finish(cell, epochs=9)
    with pytest.raises(InputError, match=naming("epochs 9 there and 5 here", "2 more")):
        cells_lib.check_on_disk(cells, overwrite=False)


def test_a_logdir_that_is_a_file(make, tmp_path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(InputError) as raised:
        cells_lib.check_on_disk(make(**ONE), overwrite=False)
    assert says(raised.value.told(as_option), f"{tmp_path}/runs", "LOGDIR", "folder")
