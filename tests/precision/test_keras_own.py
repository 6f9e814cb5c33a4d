"""Keras's own test of its LossScaleOptimizer, from the installed wheel, class swapped.

Nothing else is changed, so `tfamp.LossScaleOptimizer` stands wherever Keras's stands.
"""

import types
from pathlib import Path

import keras
import pytest

import tfamp

SOURCE = Path(keras.__file__).parent / "src" / "optimizers" / "loss_scale_optimizer_test.py"
KERAS_IMPORT = "from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer\n"
OUR_IMPORT = "from tfamp import LossScaleOptimizer\n"

if not SOURCE.is_file():
    pytest.skip(f"this Keras ships no {SOURCE.name}", allow_module_level=True)

_source = SOURCE.read_text(encoding="utf-8")
_module = types.ModuleType("keras_loss_scale_optimizer_test")
exec(compile(_source.replace(KERAS_IMPORT, OUR_IMPORT), str(SOURCE), "exec"), _module.__dict__)

# pytest collects the test case from here.
LossScaleOptimizerTest = _module.LossScaleOptimizerTest
LossScaleOptimizerTest.__module__ = __name__


def test_the_class_was_swapped():
    assert _source.count(KERAS_IMPORT) == 1
    assert _module.LossScaleOptimizer is tfamp.LossScaleOptimizer
