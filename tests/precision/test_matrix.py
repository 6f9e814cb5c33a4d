"""Every combination takes the same updates as plain Keras in float32, and skips without a trace.

clip x accumulation x EMA x scale x loop x place. Each case trains through a clean group of
microbatches, then through groups with one label whose gradient overflows float16 and whose loss
is finite, planted in each microbatch on each
replica in turn, then through two clean groups.
"""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfamp
from tests.marks import slow
from tfamp.training.callbacks import DeviceCallbackList
from tfamp.training.custom import CustomLoop

GROUP = 32  # Examples that make one update.
NUM_CLEAN = 3
CLIP = 0.25  # All of the updates have a larger gradient.
GROWTH_STEPS = 2
DYNAMIC, STATIC = 2.0**12, 2.0**7

# Of an update, in the L2 norm over all weights, relative to the update in float32. float16
# rounds to 2^-11 = 5e-4 and the errors are of both signs: 3e-4 to 4.2e-4 is what comes.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Case:
    clip: float | None
    accumulation: int
    ema: bool
    dynamic: bool
    loop: str
    place: str

    def __str__(self):
        return "-".join(
            [
                "clip" if self.clip else "noclip",
                f"{self.accumulation}micro",
                "ema" if self.ema else "noema",
                "dynamic" if self.dynamic else "static",
                self.loop,
                self.place,
            ]
        )

    @property
    def num_replicas(self):
        return 2 if self.place == "mirrored" else 1


SETTINGS = (
    (None, CLIP),
    (1, 4),
    (False, True),
    (True, False),
    ("fit", "custom"),
    ("plain", "jit", "mirrored"),
)
CASES = [Case(*values) for values in itertools.product(*SETTINGS)]
# These alone hold every pair of settings, as a test below makes sure, with two that XLA compiles.
QUICK = [
    Case(None, 1, False, True, "custom", "mirrored"),
    Case(None, 1, True, False, "custom", "jit"),
    Case(None, 4, False, True, "fit", "plain"),
    Case(CLIP, 1, False, False, "fit", "plain"),
    Case(CLIP, 4, False, True, "fit", "jit"),
    Case(CLIP, 4, True, True, "custom", "plain"),
    Case(CLIP, 4, True, False, "fit", "mirrored"),
]

GENERATOR = np.random.default_rng(0)
INPUTS = GENERATOR.normal(size=(NUM_CLEAN, GROUP, 6)).astype("float32")
LABELS = np.eye(4, dtype="float32")[GENERATOR.integers(0, 4, (NUM_CLEAN, GROUP))]


def make_model(optimizer, jit_compile):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, "tanh"),
            keras.layers.Dense(4, dtype="float32"),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, jit_compile=jit_compile)
    return model


def make_inner(clip, ema, accumulation=None):
    return keras.optimizers.SGD(
        0.5,
        momentum=0.9,
        weight_decay=1e-2,
        global_clipnorm=clip,
        use_ema=ema,
        ema_momentum=0.75,
        gradient_accumulation_steps=accumulation,
    )


def weights_of(model):
    return [np.array(weight.value) for weight in model.trainable_variables]


def averages_of(inner):
    return [np.array(average.value) for average in inner._model_variables_moving_average]


class Snapshots(keras.callbacks.Callback):
    """What is there before training and after every group."""

    def __init__(self, accumulation, take):
        super().__init__()
        self.accumulation = accumulation
        self.take = take

    def on_train_begin(self, logs=None):
        self.taken = [self.take()]

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % self.accumulation == 0:
            self.taken.append(self.take())


@pytest.fixture(scope="module")
def reference():
    """Weights and averages after each clean group: plain Keras, float32, one device, no groups."""
    known = {}

    def run(clip, ema):
        if (clip, ema) not in known:
            keras.config.set_dtype_policy("float32")
            inner = make_inner(clip, ema)
            model = make_model(inner, jit_compile=False)
            inner.build(model.trainable_variables)
            taken = Snapshots(1, lambda: (weights_of(model), averages_of(inner) if ema else None))
            data = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS))
            model.fit(data, verbose=0, shuffle=False, callbacks=[taken])
            known[clip, ema] = taken.taken
        return known[clip, ema]

    return run


def groups_of(case):
    """Inputs and labels of all groups: clean, poisoned (in each microbatch and replica), clean."""
    microbatch = GROUP // case.accumulation
    shard = microbatch // case.num_replicas
    poisoned = []
    for start in range(0, GROUP, shard):
        labels = LABELS[1].copy()
        labels[start + shard // 2, 1] = 1e30
        poisoned.append(labels)
    labels = np.stack([LABELS[0], *poisoned, *LABELS[1:]])
    inputs = np.stack([INPUTS[0], *len(poisoned) * [INPUTS[1]], *INPUTS[1:]])
    return inputs, labels, len(poisoned)


def all_copies(strategy, variables):
    """Every replica's value of every variable; asserts that they agree."""
    values = []
    for variable in variables:
        first, *others = [c.numpy() for c in strategy.experimental_local_results(variable.value)]
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=variable.path)
        values.append(first)
    return values


def check(case, strategy, reference):
    keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        inner = make_inner(
            case.clip, case.ema, case.accumulation if case.accumulation > 1 else None
        )
        optimizer = tfamp.LossScaleOptimizer(
            inner, DYNAMIC if case.dynamic else STATIC, GROWTH_STEPS, dynamic=case.dynamic
        )
        model = make_model(optimizer, jit_compile=case.place == "jit")
        optimizer.build(model.trainable_variables)

    def take():
        state = [*inner.variables, optimizer._state.microbatch, *optimizer._accumulator.sums]
        return {
            "weights": all_copies(strategy, model.trainable_variables),
            "state": all_copies(strategy, state),
            "averages": averages_of(inner) if case.ema else None,
            "counters": all_copies(strategy, optimizer._variables),
            "skipped": optimizer.skipped_total,
        }

    inputs, labels, num_poisoned = groups_of(case)
    steps = len(inputs) * case.accumulation
    data = tf.data.Dataset.from_tensor_slices(
        (inputs.reshape(-1, inputs.shape[-1]), labels.reshape(-1, labels.shape[-1]))
    ).batch(GROUP // case.accumulation, drop_remainder=True)
    snapshots = Snapshots(case.accumulation, take)
    if case.loop == "fit":
        model.fit(data, verbose=0, shuffle=False, callbacks=[snapshots])
    else:
        listed = DeviceCallbackList([snapshots], model=model, epochs=1, steps=steps, verbose=0)
        CustomLoop(model).run(data, None, 1, steps, listed)
    before, *after = snapshots.taken

    # The planted overflows changed nothing but counters and scale.
    for group in after[1 : 1 + num_poisoned]:
        for name in ("weights", "state"):
            for was, is_now in zip(after[0][name], group[name], strict=True):
                np.testing.assert_array_equal(was, is_now)
    skipped = [*range(num_poisoned + 1), num_poisoned, num_poisoned]
    assert [group["skipped"] for group in after] == skipped
    rows = optimizer.history()[1]
    updates = rows["is_update"] == 1
    scales = [DYNAMIC, *(DYNAMIC * 0.5**i for i in range(num_poisoned + 1))]
    expected = [*scales, scales[-1]] if case.dynamic else [STATIC] * len(inputs)
    assert rows["scale"][updates].tolist() == expected
    assert (optimizer.steps_attempted, optimizer.steps_applied) == (len(inputs), NUM_CLEAN)
    # Two clean groups in a row made it grow.
    assert optimizer.scale == (2 * scales[-1] if case.dynamic else STATIC)
    norms = rows["grad_norm"][updates]
    assert norms[[0, -2, -1]].min() > CLIP
    assert not np.isfinite(norms[1:-2]).any()

    # The applied updates are those of float32.
    clean = [before, after[0], *after[-2:]]
    for i, (ours, theirs) in enumerate(itertools.pairwise(zip(clean, reference, strict=True))):
        (ours_was, theirs_was), (ours_is, theirs_is) = ours, theirs
        wanted = flat(theirs_is[0]) - flat(theirs_was[0])
        update = flat(ours_is["weights"]) - flat(ours_was["weights"])
        error = np.linalg.norm(update - wanted) / np.linalg.norm(wanted)
        assert error < TOLERANCE, (i, error)
        if case.ema:
            apart = flat(ours_is["averages"]) - flat(theirs_is[1])
            assert np.linalg.norm(apart) < TOLERANCE * np.linalg.norm(wanted)


def flat(arrays):
    return np.concatenate([array.ravel() for array in arrays])


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK else slow(case) for case in CASES],
    ids=str,
)
def test_matrix(case, reference, two_replicas):
    strategy = two_replicas if case.place == "mirrored" else tf.distribute.get_strategy()
    check(case, strategy, reference(case.clip, case.ema))


def test_the_quick_part_holds_every_pair_of_settings():
    rows = [dataclasses.astuple(case) for case in QUICK]
    for first, second in itertools.combinations(range(len(SETTINGS)), 2):
        pairs = {(row[first], row[second]) for row in rows}
        assert pairs == set(itertools.product(SETTINGS[first], SETTINGS[second]))
