"""What each precision and loss scale leaves of a model's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from tfamp.diagnosis import advice, budget, cure, layer_windows, tally
from tfamp.diagnosis.layer_windows import LayerWindow, Windows
from tfamp.diagnosis.probe import Probe
from tfamp.diagnosis.sweep import DTYPES, HALF, SINGLE, Reached, Setting, Sweep
from tfamp.diagnosis.tally import Tally
from tfamp.run import provenance
from tfamp.run.errors import InputError, setting, unknown_name
from tfamp.run.fidelity import (
    LARGEST_LOG2_SCALE,
    PRECISIONS,
    ErrorBudget,
    Fidelity,
    LayerFidelity,
    Point,
    RankedLayer,
)
from tfamp.telemetry.memory import described_device

REFERENCE = "float64"


def gradient_fidelity(
    model: keras.Model,
    loss: Any,
    batches: Iterable[Any],
    *,
    precisions: Iterable[str] = PRECISIONS,
    log2_scales: Iterable[int] = range(25),
    training: bool = True,
    seed: int = 0,
    jit_compile: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Fidelity:
    """Measures what 16 bits leave of a model's gradient, at each loss scale, against float64.

    The model is what it was before, to the bit, when this returns or raises: nothing is trained.

    >>> fidelity = tfamp.gradient_fidelity(model, "mse", [(inputs, targets)])
    >>> fidelity.show()
    >>> fidelity.advice.initial_scale

    Args:
        model: A built Keras model: functional, Sequential, subclassed, nested. Under mixed_float16
            the layers of a float32 model compute in float16; of one that has float16 layers
            already, those in float32 stay so.
        loss: What `compile` takes, or a callable of (targets, outputs); None for the compiled one.
            `model.losses` are added.
        batches: (inputs, targets) or (inputs, targets, sample_weight) each; a few are enough.
        precisions: Of `float32`, `mixed_bfloat16` and `mixed_float16`, those to report.
        log2_scales: log2 of the static loss scales of mixed_float16. Where overflow begins below
            them, smaller ones are tried too.
        training: Whether dropout drops and BatchNormalization normalises by the batch.
        seed: Seed of dropout and augmentation.
        jit_compile: Whether XLA compiles the passes.
        progress: Is told what goes on, a line at a time.

    Returns:
        All of fidelity.json; `show()` prints it, `to_json()` gives it as JSON values. A layer's
        weights count together, and so do its calls and all batches.

    Raises:
        ValueError: An argument is not what it must be; or the loss or a gradient is not finite in
            float64 (`NonFiniteReference`), which no precision can cure.
    """
    names = _checked_precisions(precisions)
    scales = _checked_scales(log2_scales)
    given = _checked_batches(batches)
    say = progress or _silent
    with Probe(model, loss, training=training, seed=seed, jit_compile=jit_compile) as probe:
        sweep = Sweep(model, probe, given, say)
        unscaled = [(name, None) for name in names if name != HALF]
        scaled = [(HALF, scale) for scale in scales if HALF in names]
        sweep.measure([SINGLE, *unscaled, *scaled])
        windows = errors = advised = None
        limits: list[str] = []
        if HALF in names:
            windows, overflowing = cure.measured_windows(sweep, scales)
            errors = _error_budget(sweep, windows, limits, say)
            advised = advice.advice(windows, cure.cure(sweep, windows, overflowing))
        settings = [key for key in sweep.weights if key[0] in names]
        settings.sort(key=lambda key: (names.index(key[0]), key[1] or 0))
        return Fidelity(
            model=model.name,
            dataset=None,
            device=described_device(),
            jit_compile=jit_compile,
            training=training,
            batch_size=_num_examples(given[0]),
            num_batches=len(given),
            seed=seed,
            command_line=None,
            versions=provenance.versions(),
            reference=REFERENCE,
            precisions=_points(_pooled(sweep.weights), settings, None),
            activation_precisions=_points(_pooled(sweep.activations), settings, None),
            layers=tuple(_layers(sweep, windows, settings)),
            window=windows.window if windows else None,
            why=windows.why if windows else "mixed_float16 was not asked for",
            error_budget=errors,
            advice=advised,
            limits=(*probe.left_out, *sweep.limits, *limits),
        )


def _silent(_: str) -> None:
    """Tells nobody."""


def _error_budget(
    sweep: Sweep, windows: Windows, limits: list[str], say: Callable[[str], None]
) -> ErrorBudget | None:
    whole = _pooled(sweep.weights)
    errors = {
        scale: tally.relative_error(whole[HALF, scale][""], 0.0)
        for scale in layer_windows.scales_of(sweep)
        if "" in whole[HALF, scale]
    }
    known = {scale: error for scale, error in errors.items() if error is not None}
    if not known:
        limits.append("No error budget: at no scale is the whole gradient finite.")
        return ErrorBudget(forward=None, backward=None, underflow_at_scale_1=None)
    best = min(known, key=lambda scale: (known[scale], scale))
    parts = budget.Parts(*sweep.parts_of_error(best))
    paths = cure.half_layers(sweep)
    batch = sweep.batches[0]
    size = _num_examples(batch)
    entries = sum(each.outputs[0] for each in sweep.reached.values()) / len(sweep.batches)
    number = budget.num_ranked_examples(size, len(paths), len(sweep.reached), entries)
    if number < size:
        limits.append(
            f"Layers were ranked on the first {number} of {size} examples of the first batch."
        )
    ranked: list[RankedLayer] = budget.ranked(
        sweep.probe,
        budget.first_examples(batch, number),
        lambda float32: sweep.probe.mixed("float16", float32=float32),
        paths,
        best,
        say,
    )
    return budget.budget(parts, best, number, ranked)


def _layers(
    sweep: Sweep, windows: Windows | None, settings: Sequence[Setting]
) -> Iterable[LayerFidelity]:
    half = sweep.precision(HALF).computes_in
    weight_floors = layer_windows.floors(sweep.weights)
    activation_floors = layer_windows.floors(sweep.activations)
    unreached = [path for path in sweep.probe.layers if path not in sweep.reached]
    for path in [*sweep.reached, *unreached]:
        reached = sweep.reached.get(path)
        found = windows.layers[path] if windows else LayerWindow(None, None)
        yield LayerFidelity(
            path=path,
            computes_in=half.get(path) or sweep.probe.layers[path].compute_dtype,
            points=_points(sweep.weights, settings, weight_floors, path),
            activation_points=_points(sweep.activations, settings, activation_floors, path),
            window=found.window,
            why=found.why,
            **(_sizes(reached) if reached else {}),
        )


def _sizes(reached: Reached) -> dict[str, Any]:
    weights, activations = reached.weight_exponents, reached.activation_exponents
    return {
        "weight_exponents": None if weights is None else tally.histogram(weights),
        "activation_exponents": None if activations is None else tally.histogram(activations),
        "output_log2_size": tally.log2_size(*reached.outputs),
        "gradient_log2_size": tally.log2_size(*reached.gradients),
    }


def _points(
    tallies: dict[Setting, dict[str, Tally]],
    settings: Sequence[Setting],
    floors: dict[str, float] | None,
    path: str = "",
) -> tuple[Point, ...]:
    floors = layer_windows.floors(tallies) if floors is None else floors
    return tuple(
        tally.point(*key, tallies[key][path], floors[path])
        for key in settings
        if path in tallies[key]
    )


def _pooled(tallies: dict[Setting, dict[str, Tally]]) -> dict[Setting, dict[str, Tally]]:
    """The tallies of all layers together, under an empty path."""
    whole = {key: tally.pooled(by_layer.values()) for key, by_layer in tallies.items()}
    return {key: {} if each is None else {"": each} for key, each in whole.items()}


def _checked_precisions(precisions: Iterable[str]) -> list[str]:
    names = list(precisions) if not isinstance(precisions, str) else [precisions]
    if not names:
        raise InputError(
            f"{setting('precisions', ())}: it must name one or more of {', '.join(DTYPES)}."
        )
    for name in names:
        if f"mixed_{name}" in DTYPES:
            raise InputError(
                f"{setting('precisions')}: {name!r} would have weights of 16 bits too, which is "
                f"not measured. Set 'mixed_{name}'."
            )
        if name not in DTYPES:
            raise unknown_name("precision", str(name), DTYPES, "precisions")
    return [name for name in DTYPES if name in names]


def _checked_scales(log2_scales: Iterable[int]) -> list[int]:
    allowed = f"whole numbers from {-LARGEST_LOG2_SCALE} to {LARGEST_LOG2_SCALE}"
    try:
        scales = list(log2_scales)
    except TypeError:
        raise InputError(
            f"{setting('log2_scales', log2_scales)}: it must be a list of {allowed}, such as "
            "range(25)."
        ) from None
    if not scales:
        raise InputError(f"{setting('log2_scales', ())}: it must hold {allowed}, one or more.")
    for scale in scales:
        is_whole = not isinstance(scale, bool) and hasattr(scale, "__index__")
        if not is_whole or abs(scale) > LARGEST_LOG2_SCALE:
            raise InputError(f"{setting('log2_scales')}: {scale!r} is in it; it takes {allowed}.")
    return sorted({int(scale) for scale in scales})


def _checked_batches(batches: Iterable[Any]) -> list[tuple[Any, ...]]:
    form = "(inputs, targets) or (inputs, targets, sample_weight)"
    found = []
    for number, batch in enumerate(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            came = type(batch).__name__
            came += f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise InputError(
                f"{setting('batches')}: batch {number} is a {came}; each must be {form}. Pass "
                "[(inputs, targets)] for one batch."
            )
        if not _num_examples(batch):
            raise InputError(
                f"{setting('batches')}: batch {number} holds no examples; each must hold one or "
                "more."
            )
        found.append(tuple(batch))
    if not found:
        raise InputError(f"{setting('batches', [])}: it must hold one or more of {form}.")
    return found


def _num_examples(batch: Sequence[Any]) -> int:
    leaves = [leaf for leaf in keras.tree.flatten(batch[0]) if leaf is not None]
    shapes = [keras.ops.shape(leaf) for leaf in leaves]
    return min((int(shape[0]) if shape else 0 for shape in shapes), default=0)
