from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest

from tests.messages import says
from tfamp.run import config as config_lib
from tfamp.run.catalogue import OPTIMIZERS
from tfamp.run.config import Config
from tfamp.run.errors import InputError, as_flag
from tfamp.run.resolve import resolve


def refused(given=(), **values):
    """Returns the message with which `resolve` refuses."""
    with pytest.raises(InputError) as raised:
        resolve(Config(**values), frozenset(given))
    return raised.value.told(as_flag)


# What is filled in.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("sgd", 0.1, 1e-4)),
        ({"model": "vit_tiny"}, ("adamw", 1e-3, 0.05)),
        ({"optimizer": "adamw"}, ("adamw", 1e-3, 0.05)),
        ({"model": "vit_tiny", "optimizer": "sgd"}, ("sgd", 0.1, 1e-4)),
        ({"learning_rate": 0.5, "weight_decay": 0.0}, ("sgd", 0.5, 0.0)),
        ({"model": "nets/vit_mine.py:net"}, ("sgd", 0.1, 1e-4)),
    ],
)
def test_what_the_user_left_open_is_filled_in(values, expected):
    config = resolve(Config(**values))
    assert (config.optimizer, config.learning_rate, config.weight_decay) == expected


def test_the_default_run_name():
    assert resolve(Config()).run_name == "resnet20-fashion_mnist_mini-float32-fit-seed0"
    config = resolve(
        Config(
            model="./a b/net.py:tiny",
            dataset="imagenette/160px-v2",
            policy="mixed_float16",
            loop="custom",
            seed=3,
        )
    )
    assert config.run_name == "._a_b_net.py_tiny-imagenette_160px_v2-mixed_float16-custom-seed3"
    assert resolve(Config(run_name="mine")).run_name == "mine"


def test_two_configs_that_differ_in_what_the_name_shows_have_two_names():
    changes = [
        {},
        {"model": "resnet18"},
        {"dataset": "synthetic"},
        {"policy": "bfloat16"},
        {"loop": "custom"},
        {"seed": 1},
    ]
    names = {resolve(Config(**change)).run_name for change in changes}
    assert len(names) == len(changes)


def test_resolving_twice_changes_nothing():
    once = resolve(Config(model="vit_tiny", policy="float16"))
    assert resolve(once) == once


def test_a_config_is_frozen_and_goes_to_json():
    config = resolve(Config(float32_layers=("a", "b"), profile_steps=(2, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    values = json.loads(json.dumps(config.to_json(), allow_nan=False))
    assert values["float32_layers"] == ["a", "b"]
    assert values["profile_steps"] == [2, 3]
    assert set(values) == {field.name for field in dataclasses.fields(Config)}


@pytest.mark.parametrize(
    ("loss_scale", "static"),
    [("dynamic", None), ("auto", None), ("none", None), ("1024", 1024.0), ("2.5", 2.5)],
)
def test_static_loss_scale(loss_scale, static):
    assert Config(loss_scale=loss_scale).static_loss_scale == static


def test_scale_settings_are_what_differs_from_the_defaults():
    assert Config().scale_settings == ()
    assert Config(loss_scale="none").scale_settings == ()
    assert Config(loss_scale="auto").scale_settings == ("loss_scale",)
    assert Config(loss_scale="8", min_loss_scale=2.0).scale_settings == (
        "loss_scale",
        "min_loss_scale",
    )


# Choices.


@pytest.mark.parametrize(
    ("field", "kind", "allowed", "near"),
    [
        ("policy", "policy", config_lib.POLICIES, "mixed_float61"),
        ("loop", "loop", config_lib.LOOPS, "custm"),
        ("augment", "augmentation", config_lib.AUGMENTATIONS, "flip_crp"),
        ("lr_schedule", "learning-rate schedule", config_lib.LR_SCHEDULES, "cosin"),
        ("optimizer", "optimizer", tuple(OPTIMIZERS), "adam"),
    ],
)
def test_an_unknown_choice_lists_the_known_and_guesses(field, kind, allowed, near):
    message = refused(**{field: near})
    _, guess = re.findall(r"'(\w+)'", message)
    assert guess in allowed
    assert says(message, kind, f"{near!r}", f"{guess!r}", f"--{field}", *allowed)
    far = refused(**{field: "zzzzzzzz"})
    assert says(far, kind, "'zzzzzzzz'", f"--{field}", *allowed) and far.count("'") == 2
    for value in allowed:
        assert getattr(resolve(Config(**{field: value})), field) == value


# Ranges.

COUNTS = (
    "image_size",
    "num_classes",
    "num_examples",
    "epochs",
    "steps_per_epoch",
    "batch_size",
    "accumulation_steps",
    "loss_scale_growth_steps",
    "loss_scale_recovery_steps",
    "max_skipped_in_a_row",
    "steps_per_execution",
    "log_every",
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_begin_at_1(name, value):
    lowest = {"image_size": "8 or more", "num_classes": "2"}.get(name, "1")
    assert says(refused(**{name: value}), f"--{name}={value}", lowest)


@pytest.mark.parametrize(
    "name", [name for name in COUNTS if name not in ("num_classes", "image_size")]
)
def test_a_count_of_1_is_taken(name):
    assert getattr(resolve(Config(**{name: 1})), name) == 1


def test_one_class_is_no_classification():
    assert says(refused(num_classes=1), "--num_classes=1", 2)
    assert resolve(Config(num_classes=2)).num_classes == 2


@pytest.mark.parametrize(
    ("name", "allowed"), [("warmup_steps", ["0 or more"]), ("seed", [0, 4294967295])]
)
def test_these_begin_at_0(name, allowed):
    assert says(refused(**{name: -1}), f"--{name}=-1", *allowed)
    assert getattr(resolve(Config(**{name: 0})), name) == 0


@pytest.mark.parametrize(
    ("name", "bound", "bad", "good"),
    [
        ("learning_rate", "above 0", [0.0, -0.1], [1e-9, 100.0]),
        ("weight_decay", "0 or more", [-1e-9], [0.0, 2.0]),
        ("momentum", "0 or more and below 1", [-0.1, 1.0], [0.0, 0.999]),
        ("label_smoothing", "0 or more and below 1", [-0.1, 1.0], [0.0, 0.5]),
        ("clip_global_norm", "above 0", [0.0, -1.0], [1e-6]),
        ("ema_momentum", "0 or more and below 1", [-0.1, 1.0], [0.0, 0.9999]),
        ("loss_scale_growth_factor", "above 1", [1.0, 0.5], [1.001, 4.0]),
        ("loss_scale_backoff_factor", "above 0 and below 1", [0.0, 1.0], [0.01, 0.99]),
    ],
)
def test_intervals(name, bound, bad, good):
    for value in [*bad, math.nan]:
        message = refused(policy="float16", **{name: value})
        assert says(message, f"--{name}={value:g}", f"{bound}.")
    is_bounded = "below" in bound
    for value in [math.inf, 1e39] if is_bounded else []:
        assert says(refused(policy="float16", **{name: value}), f"{bound}.")
    # What float32 would make 0 or infinite has no effect, or a bad one.
    for value in [1e-46] if is_bounded else [math.inf, 1e39, 1e-46]:
        if value > 1 or "1" not in bound:
            message = refused(policy="float16", **{name: value})
            assert says(message, f"--{name}={value:g}", "float32", "2^-126", "1.18e-38", "3.4e+38")
    for value in good:
        config = resolve(Config(policy="float16", **{name: value}))
        assert getattr(config, name) == value


SCALES = ("loss_scale", "initial_loss_scale", "min_loss_scale", "max_loss_scale")


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "0", "-1", "1e39", "1e-40", "1.7014118346046923e+38"]
)
def test_a_loss_scale_that_float32_does_not_hold_or_cannot_double(name, value):
    given = value if name == "loss_scale" else float(value)
    message = refused(policy="float16", **{name: given})
    shown = value if name == "loss_scale" else f"{given:.9g}"
    allowed = ("2^-126 (1.18e-38) or more", "below 2^127 (1.7e+38)")
    assert says(message, f"--{name}={shown}", *allowed)


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("value", [2.0**-126, 2.0**126])
def test_the_largest_and_the_smallest_loss_scale(name, value):
    if name == "loss_scale":
        assert resolve(Config(policy="float16", loss_scale=repr(value)))
        return
    bounds = {"min_loss_scale": 2.0**-126, "max_loss_scale": 2.0**126}
    assert resolve(Config(policy="float16", **bounds | {"initial_loss_scale": value, name: value}))


@pytest.mark.parametrize(
    ("name", "most"),
    [("seed", 2**32 - 1), ("warmup_steps", 2**31 - 1), ("epochs", 2**31 - 1)],
)
def test_counts_have_an_upper_bound(name, most):
    assert getattr(resolve(Config(**{name: most})), name) == most
    message = refused(**{name: most + 1})
    assert says(message, f"--{name}={most + 1}", most)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "  "])
def test_a_run_name_is_one_folder(name):
    shown = name if name.strip() else f"'{name}'"
    assert says(refused(run_name=name), f"--run_name={shown}", "one folder", "'/'")


@pytest.mark.parametrize("steps", [(0, 3), (5, 4), (-2, -1)])
def test_profile_steps_are_in_order_from_1(steps):
    message = refused(profile_steps=steps)
    given = f"--profile_steps={steps[0]},{steps[1]}"
    assert says(message, given, "first", "last", "--profile_steps=20,25")


def test_profiling_one_step():
    assert resolve(Config(profile_steps=(1, 1))).profile_steps == (1, 1)


def test_float32_layers_are_regular_expressions():
    message = refused(float32_layers=("fine", "conv("))
    assert says(message, "--float32_layers", "'conv('", "regular expression")
    assert "fine" not in message


# Contradictions.


def test_momentum_and_adamw():
    for values in ({"optimizer": "adamw"}, {"model": "vit_tiny"}):
        message = refused(["momentum"], momentum=0.5, **values)
        assert says(message, "--momentum", "--optimizer=adamw", "--momentum")
    assert resolve(Config(optimizer="adamw")).momentum == 0.9


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "dynamik", ""])
def test_what_a_loss_scale_can_be(value):
    message = refused(policy="float16", loss_scale=value)
    given = f"--loss_scale={value or repr(value)}"
    assert says(message, given, "'dynamic'", "'auto'", "'none'", "--loss_scale=1024")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("loss_scale", ["1024", "auto"])
def test_a_static_scale_and_one_that_is_chosen_need_float16(policy, loss_scale):
    message = refused(policy=policy, loss_scale=loss_scale)
    given = (f"--loss_scale={loss_scale}", f"--policy={policy}")
    assert says(message, *given, "--policy", "mixed_float16", "float16", "--loss_scale")
    # A file of the user's may hold float16 layers under any policy; the model decides later.
    assert resolve(Config(policy=policy, loss_scale=loss_scale, model="net.py:net"))


@pytest.mark.parametrize("flag", config_lib.SCALE_SETTINGS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
def test_a_flag_of_the_scale_needs_float16(flag, policy):
    message = refused([flag], policy=policy, max_skipped_in_a_row=3)
    given = (f"--{flag}", f"--policy={policy}")
    assert says(message, *given, "--policy", "mixed_float16", "float16", f"--{flag}")
    for policy in config_lib.FLOAT16_POLICIES:
        assert resolve(Config(policy=policy), frozenset([flag]))


@pytest.mark.parametrize("flag", config_lib.SCALE_SETTINGS)
@pytest.mark.parametrize("loss_scale", ["1024", "none"])
def test_a_flag_of_the_dynamic_scale_needs_a_dynamic_scale(flag, loss_scale):
    values = {"policy": "mixed_float16", "loss_scale": loss_scale}
    if (flag, loss_scale) == ("max_skipped_in_a_row", "1024"):
        assert resolve(Config(**values), frozenset([flag]))
        return
    message = refused([flag], **values)
    given = (f"--{flag}", f"--loss_scale={loss_scale}")
    assert says(message, *given, "no effect", "--loss_scale=dynamic", f"--{flag}")


@pytest.mark.parametrize("flag", config_lib.SCALE_SETTINGS)
def test_what_shapes_a_scale_that_is_chosen(flag):
    values = {"policy": "mixed_float16", "loss_scale": "auto"}
    if flag != "initial_loss_scale":
        assert resolve(Config(**values), frozenset([flag]))
        return
    # Two that say where it starts: neither wins.
    message = refused([flag], **values)
    given = ("--initial_loss_scale", "--loss_scale=auto", "auto chooses")
    assert says(message, *given, "--loss_scale=dynamic", "--initial_loss_scale")


def test_a_scale_that_is_chosen_needs_no_default_between_the_bounds():
    """The default initial scale lies outside these, and nobody asked for it."""
    values = {"policy": "mixed_float16", "loss_scale": "auto"}
    assert resolve(Config(**values, max_loss_scale=512.0)).initial_loss_scale == 512.0
    assert resolve(Config(**values, min_loss_scale=2.0**20)).initial_loss_scale == 2.0**20
    message = refused(**values, min_loss_scale=4.0, max_loss_scale=2.0)
    assert says(message, "--min_loss_scale=4", "--max_loss_scale=2")


def test_defaults_of_scale_flags_contradict_nothing():
    for policy in config_lib.POLICIES:
        assert resolve(Config(policy=policy), frozenset(["policy"]))
        assert resolve(Config(policy=policy, loss_scale="none"))


@pytest.mark.parametrize("scales", [(2.0, 1.0, 4.0), (1.0, 8.0, 4.0)], ids=["below", "above"])
def test_the_initial_scale_lies_between_the_bounds(scales):
    low, start, high = scales
    values = {"min_loss_scale": low, "initial_loss_scale": start, "max_loss_scale": high}
    message = refused(policy="mixed_float16", **values)
    assert says(
        message,
        *(
            f"--{name}={values[name]:g}"
            for name in ("initial_loss_scale", "min_loss_scale", "max_loss_scale")
        ),
    )


def test_a_floor_above_the_ceiling_is_named_with_it():
    message = refused(policy="mixed_float16", min_loss_scale=4.0, max_loss_scale=2.0)
    assert says(message, "--min_loss_scale=4", "--max_loss_scale=2")
    assert "initial_loss_scale" not in message
