from __future__ import annotations

import dataclasses

import pytest
from absl import flags

from tests.messages import naming, says
from tfamp import train
from tfamp.run import flags as run_flags
from tfamp.run.config import Config, declarations
from tfamp.run.errors import InputError
from tfamp.run.resolve import resolve


def parse(*arguments):
    """From a command line to a config."""
    return run_flags.config_from_arguments(arguments)


def exits(capsys, *arguments):
    """Returns what is said where the command line is refused."""
    assert train.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_there_is_one_flag_for_each_field_and_each_says_what_it_does():
    values = run_flags.parse([])
    defined = set(values) - set(flags.FlagValues())
    assert sorted(defined) == sorted(field.name for field in dataclasses.fields(Config))
    for name in defined:
        assert len(values[name].help) > 15, name


def test_no_flags_make_the_default_config():
    assert parse() == resolve(Config())


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ("--policy=bfloat16", "policy", "bfloat16"),
        ("--float32_layers=conv1,^norm.*$, head", "float32_layers", ("conv1", "^norm.*$", "head")),
        ("--float32_layers=", "float32_layers", ()),
        ("--model=vit_tiny", "model", "vit_tiny"),
        ("--dataset=synthetic", "dataset", "synthetic"),
        ("--data_dir=/data", "data_dir", "/data"),
        ("--image_size=40", "image_size", 40),
        ("--num_classes=7", "num_classes", 7),
        ("--num_examples=99", "num_examples", 99),
        ("--augment=flip_crop", "augment", "flip_crop"),
        ("--loop=custom", "loop", "custom"),
        ("--epochs=9", "epochs", 9),
        ("--steps_per_epoch=8", "steps_per_epoch", 8),
        ("--batch_size=6", "batch_size", 6),
        ("--seed=5", "seed", 5),
        ("--optimizer=adamw", "optimizer", "adamw"),
        ("--learning_rate=0.25", "learning_rate", 0.25),
        ("--lr_schedule=constant", "lr_schedule", "constant"),
        ("--warmup_steps=4", "warmup_steps", 4),
        ("--weight_decay=0.125", "weight_decay", 0.125),
        ("--momentum=0.5", "momentum", 0.5),
        ("--label_smoothing=0.1", "label_smoothing", 0.1),
        ("--clip_global_norm=2", "clip_global_norm", 2.0),
        ("--ema_momentum=0.99", "ema_momentum", 0.99),
        ("--accumulation_steps=3", "accumulation_steps", 3),
        ("--loss_scale=none", "loss_scale", "none"),
        ("--policy=float16 --loss_scale=1024", "loss_scale", "1024"),
        ("--policy=float16 --initial_loss_scale=64", "initial_loss_scale", 64.0),
        ("--policy=float16 --loss_scale_growth_steps=2", "loss_scale_growth_steps", 2),
        ("--policy=float16 --loss_scale_growth_factor=4", "loss_scale_growth_factor", 4.0),
        ("--policy=float16 --loss_scale_backoff_factor=0.25", "loss_scale_backoff_factor", 0.25),
        ("--policy=float16 --min_loss_scale=1", "min_loss_scale", 1.0),
        ("--policy=float16 --max_loss_scale=65536", "max_loss_scale", 65536.0),
        ("--policy=float16 --max_skipped_in_a_row=7", "max_skipped_in_a_row", 7),
        ("--policy=float16 --max_skipped_in_a_row=none", "max_skipped_in_a_row", None),
        ("--policy=float16 --loss_scale_recovery_steps=NONE", "loss_scale_recovery_steps", None),
        ("--policy=float16 --loss_scale_recovery_steps=5", "loss_scale_recovery_steps", 5),
        ("--steps_per_execution=10", "steps_per_execution", 10),
        ("--profile_steps=20,25", "profile_steps", (20, 25)),
        ("--logdir=elsewhere", "logdir", "elsewhere"),
        ("--run_name=mine", "run_name", "mine"),
        ("--log_every=3", "log_every", 3),
    ],
)
def test_a_flag_becomes_its_field_and_nothing_else(arguments, name, value):
    config = (
        parse(*arguments.replace(", ", ",\x00").split(" "))
        if ", " not in arguments
        else (parse(arguments))
    )
    assert getattr(config, name) == value
    given = {"policy": config.policy} if "--policy" in arguments else {}
    assert config == resolve(dataclasses.replace(Config(**given), **{name: value}))


BOOLEANS = ("tf32", "deterministic", "overwrite", "jit_compile")


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("--{}=on", True),
        ("--{}=off", False),
        ("--{}=ON", True),
        ("--{}=Off", False),
        ("--{}=true", True),
        ("--{}=false", False),
        ("--{}=1", True),
        ("--{}=0", False),
        ("--{}", True),
        ("--no{}", False),
    ],
)
def test_booleans(name, written, value):
    assert getattr(parse(written.format(name)), name) is value


def test_a_boolean_that_is_neither(capsys):
    message = exits(capsys, "--tf32=maybe")
    assert says(message, "tfamp: --tf32=maybe", "on", "off")


def test_xla_is_left_open_unless_set():
    assert parse().jit_compile is None


@pytest.mark.parametrize("value", ["5", "a,b", "1,2,3", "1.5,2", ""])
def test_profile_steps_are_two_whole_numbers(value, capsys):
    message = exits(capsys, f"--profile_steps={value}")
    assert says(message, f"--profile_steps={value or repr(value)}", "two whole numbers")


def test_a_misspelt_flag_is_guessed(capsys):
    message = exits(capsys, "--polcy=float16")
    assert says(message, "flag 'polcy'", "policy", "--helpshort")
    assert message.count("tfamp:") == 1


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [
        ("--epochs=many", "whole number"),
        ("--epochs=1.5", "whole number"),
        ("--learning_rate=fast", "a number"),
    ],
)
def test_a_number_that_is_none(flag, allowed, capsys):
    assert says(exits(capsys, flag), f"tfamp: {flag}", allowed)


def test_an_argument_without_dashes(capsys):
    message = exits(capsys, "policy=float16")
    assert says(message, "Unexpected", "'policy=float16'", "--flag=value")


def test_flagfile(tmp_path):
    file = tmp_path / "run.cfg"
    file.write_text("# A run.\n--policy=mixed_float16\n--tf32=off\n\n--profile_steps=2,3\n")
    config = parse(f"--flagfile={file}", "--seed=4")
    assert (config.policy, config.tf32, config.profile_steps, config.seed) == (
        "mixed_float16",
        False,
        (2, 3),
        4,
    )


def test_the_command_line_after_a_flagfile_wins(tmp_path):
    file = tmp_path / "run.cfg"
    file.write_text("--seed=1\n--epochs=7\n")
    config = parse(f"--flagfile={file}", "--seed=2")
    assert (config.seed, config.epochs) == (2, 7)


def test_a_flagfile_counts_as_given(tmp_path):
    file = tmp_path / "run.cfg"
    file.write_text("--initial_loss_scale=1024\n")
    with pytest.raises(InputError, match=naming("initial_loss_scale", "policy='float32'")):
        parse(f"--flagfile={file}")


def test_an_absent_flagfile(capsys, tmp_path):
    message = exits(capsys, f"--flagfile={tmp_path}/absent.cfg")
    assert "absent.cfg" in message


def test_what_is_given_is_told_from_a_default():
    # The same value as the default: given all the same.
    with pytest.raises(InputError, match=naming("initial_loss_scale", "policy='float32'")):
        parse("--initial_loss_scale=32768")
    with pytest.raises(InputError, match=naming("momentum", "optimizer='adamw'")):
        parse("--optimizer=adamw", "--momentum=0.9")


def test_bad_values_raise_what_the_commands_turn_into_exit_2(capsys):
    with pytest.raises(InputError) as raised:
        parse("--epochs=0")
    assert raised.value.field == "epochs"
    message, help_line = exits(capsys, "--epochs=0").splitlines()
    assert says(message, "tfamp: --epochs=0", 1) and says(help_line, "--helpshort")


# Flags of their own, beside those of the process.


def test_arguments_make_the_config_that_the_trainer_would_make(tmp_path):
    file = tmp_path / "run.cfg"
    file.write_text("--policy=mixed_float16\n--epochs=7\n")
    arguments = [f"--flagfile={file}", "--epochs=2", "--nojit_compile", "--float32_layers=a,b"]
    arguments += ["--profile_steps=2,3", "--tf32=off"]
    assert run_flags.config_from_arguments(arguments) == parse(*arguments)
    assert run_flags.config_from_arguments([]) == parse() == resolve(Config())


def test_parsing_leaves_the_flags_of_the_process_alone():
    values = run_flags.parse(["--policy=float16", "--seed=3"])
    assert (values["policy"].value, values["seed"].value) == ("float16", 3)
    assert [name for name in declarations() if values[name].present] == ["policy", "seed"]
    assert not {"policy", "seed", "loss_scale"} & set(flags.FLAGS)
    assert run_flags.parse([])["policy"].value == "float32"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--polcy=float16", ("flag 'polcy'", "policy")),
        ("--epochs=many", ("epochs='many'", "whole number")),
        ("--tf32=maybe", ("tf32='maybe'", "on", "off")),
        ("policy=float16", ("Unexpected", "'policy=float16'", "--flag=value")),
        ("--flagfile=absent.cfg", ("absent.cfg",)),
        ("--flagfile", ("--flagfile", "no argument")),
        ("--help", ("flag 'help'",)),
        ("--epochs=0", ("epochs=0", 1)),
        ("--loss_scale=8", ("loss_scale='8'", "policy='float32'", "mixed_float16", "float16")),
    ],
)
def test_bad_arguments_are_raised(argument, message):
    with pytest.raises(InputError) as raised:
        run_flags.config_from_arguments(["--seed=1", argument])
    assert says(str(raised.value), *message)


def test_given_flags_as_arguments_make_the_same_config(tmp_path):
    (tmp_path / "a.flags").write_text("--epochs=3\n--float32_layers=norm,head\n--notf32\n")
    given = [f"--flagfile={tmp_path}/a.flags", "--profile_steps", "2,3", "--jit_compile=on"]
    parsed = run_flags.parse([*given, "--learning_rate=0.25"])
    assert sorted(run_flags.as_arguments(parsed, but=["learning_rate", "seed"])) == [
        "--epochs=3",
        "--float32_layers=norm,head",
        "--jit_compile",
        "--notf32",
        "--profile_steps=2,3",
    ]
    again = run_flags.config_from_arguments(run_flags.as_arguments(parsed))
    assert again == run_flags.config_from_flags(parsed)


def test_a_flagfile_that_is_no_text(tmp_path):
    (tmp_path / "run.cfg").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError):
        run_flags.parse([f"--flagfile={tmp_path}/run.cfg"])


def test_what_is_written_out_beside_flagfiles():
    arguments = ["--a=1", "--flagfile=x", "-flagfile=y", "b", "--flagfile", "z", "--c", "-flagfile"]
    assert run_flags.without_flagfiles(arguments) == ["--a=1", "b", "--c"]


def test_what_was_asked_is_what_was_given(tmp_path):
    """Not what was decided: a default that is given counts, one that is filled in does not."""
    (tmp_path / "run.flags").write_text("--epochs=5\n--float32_layers=a,b\n")
    values = run_flags.parse([f"--flagfile={tmp_path}/run.flags", "--max_skipped_in_a_row=none"])
    expected = {"epochs": 5, "float32_layers": ("a", "b"), "max_skipped_in_a_row": None}
    assert run_flags.asked(values) == expected
    assert run_flags.asked(run_flags.parse([])) == {}
