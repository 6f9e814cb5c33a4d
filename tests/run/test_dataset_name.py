"""The form of a --dataset."""

import pytest

from tfamp.run import dataset_name
from tfamp.run.config import Config, resolve
from tfamp.run.errors import InputError


@pytest.mark.parametrize(
    "name", ["synthetic", "cifar100", "imagenette/160px-v2", "imagenet2012:5.1.0", "a/b:1.*.*"]
)
def test_names_of_the_right_form(name):
    dataset_name.check(name)
    assert resolve(Config(dataset=name)).dataset == name


@pytest.mark.parametrize("name", ["", "fashion mnist", "../etc/passwd", "a/b/c", "\u00e9", "1a"])
def test_other_names_are_refused_with_the_config(name):
    with pytest.raises(InputError, match=r"is no dataset name\..*dataset takes fashion"):
        resolve(Config(dataset=name))


def test_the_nearest_guess():
    with pytest.raises(InputError, match="Did you mean 'fashion_mnist'"):
        dataset_name.check("fashion mnist")
