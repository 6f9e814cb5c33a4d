"""What has a name, and the form of what has none there."""

import pytest

from tests.messages import naming
from tfamp.run import catalogue
from tfamp.run.config import Config
from tfamp.run.errors import InputError
from tfamp.run.resolve import resolve


@pytest.mark.parametrize(
    "name", ["synthetic", "cifar100", "imagenette/160px-v2", "imagenet2012:5.1.0", "a/b:1.*.*"]
)
def test_names_of_the_right_form(name):
    catalogue.check_dataset("dataset", name)
    assert resolve(Config(dataset=name)).dataset == name


@pytest.mark.parametrize("name", ["", "fashion mnist", "../etc/passwd", "a/b/c", "\u00e9", "1a"])
def test_other_names_are_refused_with_the_config(name):
    with pytest.raises(InputError, match=naming(f"{name!r}", "dataset", "fashion_mnist_mini")):
        resolve(Config(dataset=name))


def test_the_nearest_guess():
    with pytest.raises(InputError, match=naming("'fashion mnist'", "'fashion_mnist'")):
        catalogue.check_dataset("dataset", "fashion mnist")


@pytest.mark.parametrize(
    ("model", "is_user_model"),
    [("resnet20", False), ("net.py:build", True), ("net.py", True), ("a/b", True), ("net:f", True)],
)
def test_what_is_meant_as_a_file(model, is_user_model):
    """Asked in one place: a config, the registry and the record of files agree."""
    assert catalogue.is_user_model(model) is is_user_model
    assert Config(model=model).is_user_model is is_user_model


@pytest.mark.parametrize("model", ["resnet_20", "my.py", "my.py:", "my.py:a-b", "a/b", ""])
def test_models_that_cannot_be_are_refused_with_the_config(model):
    with pytest.raises(InputError) as raised:
        resolve(Config(model=model))
    assert raised.value.field == "model"


def test_a_row_decides_the_default_optimizer():
    for name, row in catalogue.MODELS.items():
        assert resolve(Config(model=name)).optimizer == row.optimizer
    for name, row in catalogue.OPTIMIZERS.items():
        config = resolve(Config(optimizer=name))
        assert (config.learning_rate, config.weight_decay) == (row.learning_rate, row.weight_decay)
