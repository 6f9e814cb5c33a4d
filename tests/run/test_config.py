from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest

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
    ("loss_scale", "static"), [("dynamic", None), ("none", None), ("1024", 1024.0), ("2.5", 2.5)]
)
def test_static_loss_scale(loss_scale, static):
    assert Config(loss_scale=loss_scale).static_loss_scale == static


def test_scale_settings_are_what_differs_from_the_defaults():
    assert Config().scale_settings == ()
    assert Config(loss_scale="none").scale_settings == ()
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
    guess = re.search(r"Did you mean '(\w+)'\?", message)[1]
    assert guess in allowed
    assert message == (
        f"Unknown {kind} {near!r}. Did you mean {guess!r}? --{field} takes: {', '.join(allowed)}."
    )
    far = refused(**{field: "zzzzzzzz"})
    assert far == f"Unknown {kind} 'zzzzzzzz'. --{field} takes: {', '.join(allowed)}."
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
    allowed = re.compile("[18] or more|from [12] to 1000000")
    message = refused(**{name: value})
    assert message.startswith(f"--{name}={value}: it must be ") and allowed.search(message)


@pytest.mark.parametrize(
    "name", [name for name in COUNTS if name not in ("num_classes", "image_size")]
)
def test_a_count_of_1_is_taken(name):
    assert getattr(resolve(Config(**{name: 1})), name) == 1


def test_one_class_is_no_classification():
    assert refused(num_classes=1).startswith("--num_classes=1: it must be from 2 to ")
    assert resolve(Config(num_classes=2)).num_classes == 2


@pytest.mark.parametrize("name", ["warmup_steps", "seed"])
def test_these_begin_at_0(name):
    message = refused(**{name: -1})
    assert re.match(f"--{name}=-1: it must be (0 or more|from 0 to 4294967295)", message)
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
        assert message == f"--{name}={value:g}: it must be {bound}."
    is_bounded = "below" in bound
    for value in [math.inf, 1e39] if is_bounded else []:
        assert refused(policy="float16", **{name: value}).endswith(f"it must be {bound}.")
    # What float32 would make 0 or infinite has no effect, or a bad one.
    for value in [1e-46] if is_bounded else [math.inf, 1e39, 1e-46]:
        if value > 1 or "1" not in bound:
            message = refused(policy="float16", **{name: value})
            assert message == (
                f"--{name}={value:g}: float32 does not hold it. Set a number from 2^-126 "
                "(1.18e-38) to 3.4e+38."
            )
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
    assert message.startswith(f"--{name}={shown}: ")
    assert "must be 2^-126 (1.18e-38) or more and below 2^127 (1.7e+38)" in message


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
    assert message.startswith(f"--{name}={most + 1}: it must be ") and str(most) in message


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "  "])
def test_a_run_name_is_one_folder(name):
    shown = name if name.strip() else f"'{name}'"
    assert refused(run_name=name) == f"--run_name={shown}: give one folder name without '/'."


@pytest.mark.parametrize("steps", [(0, 3), (5, 4), (-2, -1)])
def test_profile_steps_are_in_order_from_1(steps):
    message = refused(profile_steps=steps)
    assert message.startswith(f"--profile_steps={steps[0]},{steps[1]}: give the first and the last")
    assert "such as --profile_steps=20,25" in message


def test_profiling_one_step():
    assert resolve(Config(profile_steps=(1, 1))).profile_steps == (1, 1)


def test_float32_layers_are_regular_expressions():
    message = refused(float32_layers=("fine", "conv("))
    assert message.startswith("--float32_layers: 'conv(' is no regular expression (")


# Contradictions.


def test_momentum_and_adamw():
    message = "--momentum was set, but --optimizer=adamw has none. Leave --momentum out."
    assert refused(["momentum"], optimizer="adamw", momentum=0.5) == message
    assert refused(["momentum"], model="vit_tiny", momentum=0.5) == message
    assert resolve(Config(optimizer="adamw")).momentum == 0.9


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "dynamik", ""])
def test_what_a_loss_scale_can_be(value):
    message = refused(policy="float16", loss_scale=value)
    assert message.startswith(f"--loss_scale={value or repr(value)}: it takes 'dynamic', 'none'")
    assert "such as --loss_scale=1024" in message


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
def test_a_static_scale_needs_float16(policy):
    assert refused(policy=policy, loss_scale="1024") == (
        f"--loss_scale=1024 with --policy={policy}: only float16 needs a loss scale. Set --policy "
        "to one of mixed_float16, float16, or leave --loss_scale out."
    )
    # A file of the user's may hold float16 layers under any policy; the model decides later.
    assert resolve(Config(policy=policy, loss_scale="1024", model="net.py:net"))


@pytest.mark.parametrize("flag", config_lib.SCALE_SETTINGS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16"])
def test_a_flag_of_the_scale_needs_float16(flag, policy):
    assert refused([flag], policy=policy, max_skipped_in_a_row=3) == (
        f"--{flag} with --policy={policy}: only float16 needs a loss scale. Set --policy to one of "
        f"mixed_float16, float16, or leave --{flag} out."
    )
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
    assert message.startswith(f"--{flag} with --loss_scale={loss_scale}: it has no effect there.")
    assert f"Set --loss_scale=dynamic, or leave --{flag} out" in message


def test_defaults_of_scale_flags_contradict_nothing():
    for policy in config_lib.POLICIES:
        assert resolve(Config(policy=policy), frozenset(["policy"]))
        assert resolve(Config(policy=policy, loss_scale="none"))


@pytest.mark.parametrize(
    "scales", [(2.0, 1.0, 4.0), (1.0, 8.0, 4.0), (4.0, 3.0, 2.0)], ids=["below", "above", "crossed"]
)
def test_the_initial_scale_lies_between_the_bounds(scales):
    low, start, high = scales
    values = {"min_loss_scale": low, "initial_loss_scale": start, "max_loss_scale": high}
    assert refused(policy="mixed_float16", **values) == (
        f"--initial_loss_scale={start:g} lies outside [--min_loss_scale={low:g}, "
        f"--max_loss_scale={high:g}]. Move one of the three."
    )
