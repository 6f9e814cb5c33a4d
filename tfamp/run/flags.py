"""The command line of the trainer: absl flags, read here and nowhere else."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from absl import flags

from tfamp.run import config as config_lib
from tfamp.run.errors import InputError, as_flag

_DEFAULTS = config_lib.Config()


class _OnOffParser(flags.BooleanParser):
    """A boolean that also takes `on` and `off`."""

    def parse(self, argument: Any) -> bool | None:
        words = {"on": True, "off": False}
        if isinstance(argument, str) and argument.lower() in words:
            return words[argument.lower()]
        try:
            return super().parse(argument)
        except ValueError as error:
            raise ValueError(f"expected on or off, got {argument!r}") from error


class _LimitParser(flags.IntegerParser):
    """A whole number, or `none` for no limit."""

    syntactic_help = "a whole number, or none"

    def parse(self, argument: Any) -> int | None:
        if isinstance(argument, str) and argument.lower() == "none":
            return None
        try:
            return super().parse(argument)
        except ValueError as error:
            raise ValueError(f"expected a whole number or none, got {argument!r}") from error


class _StepRangeParser(flags.ArgumentParser):
    """Two step numbers, `A,B`."""

    syntactic_help = "two whole numbers, A,B"

    def parse(self, argument: Any) -> tuple[int, int] | None:
        if isinstance(argument, tuple):
            return argument
        try:
            first, last = (int(part) for part in argument.split(","))
        except ValueError as error:
            raise ValueError(f"expected two whole numbers A,B, got {argument!r}") from error
        return first, last

    def flag_type(self) -> str:
        return "A,B"


class _StepRangeSerializer(flags.ArgumentSerializer):
    """Writes what `_StepRangeParser` reads."""

    def serialize(self, value: tuple[int, int]) -> str:
        return f"{value[0]},{value[1]}"


def _define(values: flags.FlagValues) -> None:
    default = dataclasses.asdict(_DEFAULTS)

    def boolean(name: str, text: str) -> None:
        flag = flags.BooleanFlag(name, default[name], text)
        flag.parser = _OnOffParser()
        flags.DEFINE_flag(flag, values)

    def string(name: str, text: str) -> None:
        flags.DEFINE_string(name, default[name], text, flag_values=values)

    def integer(name: str, text: str) -> None:
        flags.DEFINE_integer(name, default[name], text, flag_values=values)

    def limit(name: str, text: str) -> None:
        serializer = flags.ArgumentSerializer()
        flags.DEFINE(_LimitParser(), name, default[name], text, values, serializer)

    def number(name: str, text: str) -> None:
        flags.DEFINE_float(name, default[name], text, flag_values=values)

    def choice(name: str, allowed: tuple[str, ...], text: str) -> None:
        string(name, f"<{'|'.join(allowed)}>: {text}")

    choice(
        "policy",
        config_lib.POLICIES,
        "Precision policy. float16 and bfloat16 keep the variables in 16 bits too, to show why "
        "master weights matter.",
    )
    boolean("tf32", "Let float32 matrix products run in TF32 on NVIDIA Ampere and later.")
    flags.DEFINE_list(
        "float32_layers",
        [],
        "Comma-separated regular expressions; layers whose path holds a match compute in float32.",
        flag_values=values,
    )
    string(
        "model",
        "resnet20, resnet18, resnet50, vit_tiny, vit_small, vit_base, or path/to/file.py:function, "
        "where function(input_shape, num_classes) returns a keras.Model.",
    )
    string(
        "dataset",
        "fashion_mnist_mini (embedded), synthetic, or an image classification set of TFDS by name.",
    )
    string("data_dir", "Where TFDS keeps its prepared sets. Default: TFDS's own.")
    integer("image_size", "Resize images to this many pixels a side. Default: the set's own.")
    integer("num_classes", "Classes of --dataset=synthetic.")
    integer("num_examples", "Training examples of --dataset=synthetic.")
    choice("augment", config_lib.AUGMENTATIONS, "Augmentation, in the input pipeline, in float32.")
    choice("loop", config_lib.LOOPS, "model.fit, or tfamp's tf.function over a GradientTape.")
    integer("epochs", "Epochs to train.")
    integer("steps_per_epoch", "Steps an epoch. Default: the whole training set once.")
    integer("batch_size", "Examples a step.")
    integer("seed", "Seed of weights, order and augmentation.")
    boolean("deterministic", "Use deterministic kernels: the same run twice gives the same bits.")
    choice("optimizer", config_lib.OPTIMIZERS, "Default: adamw for ViTs, sgd elsewhere.")
    number("learning_rate", "Peak learning rate. Default: 0.1 for sgd, 0.001 for adamw.")
    choice("lr_schedule", config_lib.LR_SCHEDULES, "Cosine decays to 0 at the last step.")
    integer("warmup_steps", "Optimizer updates of linear warm-up from 0.")
    number("weight_decay", "Decoupled weight decay. Default: 0.0001 for sgd, 0.05 for adamw.")
    number("momentum", "Momentum of sgd.")
    number("label_smoothing", "Share of each label spread over all classes.")
    number("clip_global_norm", "Clip the unscaled gradient to this global norm.")
    number("ema_momentum", "Average the weights with this momentum and evaluate the average.")
    integer("accumulation_steps", "Batches whose gradients are averaged into one update.")
    string("loss_scale", "dynamic, none, or a number (a static scale).")
    number("initial_loss_scale", "Where a dynamic loss scale starts.")
    integer("loss_scale_growth_steps", "Clean steps before a dynamic loss scale grows.")
    number("loss_scale_growth_factor", "What a dynamic scale is multiplied by when it grows.")
    number(
        "loss_scale_backoff_factor",
        "What a dynamic scale is multiplied by on a non-finite gradient.",
    )
    number("min_loss_scale", "Floor of a dynamic loss scale.")
    number("max_loss_scale", "Ceiling of a dynamic loss scale.")
    limit(
        "loss_scale_recovery_steps",
        "After 8 overflows in a row, clean steps before a dynamic loss scale grows until it is "
        "back; none is torch's rule, which waits --loss_scale_growth_steps each time.",
    )
    limit(
        "max_skipped_in_a_row",
        "Stop the run after more skipped steps in a row than this; none is no limit.",
    )
    boolean(
        "stop_on_non_finite",
        "Stop the run at more than max_skipped_in_a_row skipped steps in a row, where the loss "
        "scale can fall no further, or, where nothing is scaled, at a weight that is NaN or "
        "infinite. Without it the run goes on and says so.",
    )
    boolean(
        "jit_compile",
        "Compile the step with XLA. Default: on a GPU yes; on a CPU only for float16, which is "
        "very slow there without it.",
    )
    integer("steps_per_execution", "Steps inside one call from the host, in both loops.")
    flags.DEFINE(
        _StepRangeParser(),
        "profile_steps",
        None,
        "A,B: trace steps A to B for TensorBoard's tab Profile, which is a plugin of its own: "
        "TFAMP_EXTRAS=profile scripts/tensorboard.sh installs and shows it.",
        flag_values=values,
        serializer=_StepRangeSerializer(),
    )
    string("logdir", "Folder that holds the runs.")
    string("run_name", "Folder of this run. Default: model, dataset, policy, loop and seed.")
    integer("log_every", "Steps between two reads from the device; rows still hold every step.")
    boolean(
        "save_model",
        "Save the last weights, and the model where a fresh process loads it (checked, which takes "
        "seconds).",
    )
    boolean("save_best", "Keep the weights with the best validation accuracy too.")
    boolean("overwrite", "Replace a finished run of the same name.")


_define(flags.FLAGS)


def config_from_flags(values: flags.FlagValues = flags.FLAGS) -> config_lib.Config:
    """Turns parsed flags into a checked and resolved `Config`.

    Raises:
        InputError: A value is not allowed, or two values contradict each other.
    """
    names = [field.name for field in dataclasses.fields(config_lib.Config)]
    given = frozenset(name for name in names if values[name].present)
    read = {name: values[name].value for name in names}
    read["float32_layers"] = tuple(part.strip() for part in read["float32_layers"] if part.strip())
    if isinstance(read["profile_steps"], list):
        read["profile_steps"] = tuple(read["profile_steps"])
    return config_lib.resolve(config_lib.Config(**read), given)


def parse(arguments: Sequence[str]) -> flags.FlagValues:
    """Parses arguments into flags of their own; the process's flags are left as they are.

    Args:
        arguments: What follows the program's name, such as `["--policy=float16"]`.

    Raises:
        InputError: A flag is unknown, a value is none of its kind, or something is no flag.
    """
    values = flags.FlagValues()
    _define(values)
    try:
        _refuse_the_rest(values(["tfamp.train", *arguments]))
    except (flags.Error, UnicodeDecodeError) as error:
        raise _input_error(error) from error
    return values


def config_from_arguments(arguments: Sequence[str]) -> config_lib.Config:
    """The checked and resolved `Config` that the trainer would make of these arguments.

    Raises:
        InputError: The trainer would refuse them.
    """
    return config_from_flags(parse(arguments))


def without_flagfiles(arguments: Sequence[str]) -> list[str]:
    """The arguments that were written out, without `--flagfile=FILE` and `--flagfile FILE`."""
    written, is_file = [], False
    for argument in arguments:
        if is_file:
            is_file = False
        elif argument in ("--flagfile", "-flagfile"):
            is_file = True
        elif not argument.startswith(("--flagfile=", "-flagfile=")):
            written.append(argument)
    return written


def as_arguments(values: flags.FlagValues, but: Collection[str] = ()) -> list[str]:
    """The flags that were given, those of flagfiles too, as arguments to give again.

    Args:
        values: Parsed flags.
        but: Names of flags to leave out.
    """
    names = [field.name for field in dataclasses.fields(config_lib.Config)]
    given = [name for name in names if values[name].present and name not in but]
    # absl writes nothing for a limit that is none.
    return [values[name].serialize() or f"--{name}=none" for name in given]


def _input_error(error: flags.Error | UnicodeDecodeError) -> InputError:
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"--flagfile: it is no text in UTF-8 ({error}).", "flagfile")
    # absl's own prefix of a flagfile that is not there.
    return InputError(str(error).removeprefix("ERROR:: "))


def _refuse_the_rest(rest: Sequence[str]) -> None:
    if len(rest) > 1:
        raise InputError(f"Unexpected argument {rest[1]!r}: every option is a --flag=value.")


def parse_or_exit(argv: list[str]) -> list[str]:
    """Parses the command line; bad input ends the process with exit code 2.

    Returns:
        What is left of `argv` once the flags are taken out.
    """
    try:
        rest = flags.FLAGS(argv)
        _refuse_the_rest(rest)
        return rest
    except InputError as error:
        exit_with_input_error(error)
    except (flags.Error, UnicodeDecodeError) as error:
        exit_with_input_error(_input_error(error))
    except SystemExit:
        # absl ends --help and its kin with 1; a question answered is no failure.
        sys.exit(0)


def exit_with_input_error(error: InputError) -> NoReturn:
    """Prints one message without a traceback and exits with code 2."""
    print(f"tfamp: {error.told(as_flag)}", file=sys.stderr)
    print("Run with --helpshort to see every flag.", file=sys.stderr)
    sys.exit(2)
