"""What has a name: models, data sets, optimizers; a row each, and all that is known of it here.

The rows need no TensorFlow, so that a wrong name costs no import of it and `--help` lists the
right ones. `models/registry.py` and `data/registry.py` import what a row names.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfamp.run.errors import InputError, nearest_names, setting, unknown_name


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """A network of tfamp's own.

    Attributes:
        family: The module of `tfamp.models` that builds it.
        sizes: Its sizes, as that module's `Sizes` takes them.
        optimizer: What trains it unless the user says.
    """

    family: str
    sizes: Mapping[str, Any]
    optimizer: str = "sgd"


# ResNets: He et al. 2016 (arXiv 1512.03385), section 4.2 and table 1. ViTs: Touvron et al. 2021
# (arXiv 2012.12877), table 1.
MODELS = {
    "resnet20": NamedModel(
        "resnet", {"filters": (16, 32, 64), "blocks": (3, 3, 3), "is_cifar_form": True}
    ),
    "resnet18": NamedModel("resnet", {"filters": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)}),
    "resnet50": NamedModel(
        "resnet", {"filters": (64, 128, 256, 512), "blocks": (3, 4, 6, 3), "bottleneck": True}
    ),
    "vit_tiny": NamedModel("vit", {"width": 192, "num_heads": 3}, optimizer="adamw"),
    "vit_small": NamedModel("vit", {"width": 384, "num_heads": 6}, optimizer="adamw"),
    "vit_base": NamedModel("vit", {"width": 768, "num_heads": 12}, optimizer="adamw"),
}
USER_MODEL = "path/to/file.py:function"


@dataclasses.dataclass(frozen=True)
class NamedDataset:
    """A data set of tfamp's own.

    Attributes:
        module: The module of `tfamp.data` whose `open_source` opens it.
        about: A word on it.
        settings: The settings that it alone takes.
    """

    module: str
    about: str
    settings: tuple[str, ...] = ()


DATASETS = {
    "fashion_mnist_mini": NamedDataset("embedded", "embedded"),
    "synthetic": NamedDataset("synthetic", "generated", settings=("num_classes", "num_examples")),
}


@dataclasses.dataclass(frozen=True)
class NamedOptimizer:
    """An optimizer; `training/optim.py` makes it.

    Attributes:
        learning_rate: The peak where the user gives none.
        weight_decay: The decoupled weight decay where the user gives none.
        settings: The settings that it alone takes.
    """

    learning_rate: float
    weight_decay: float
    settings: tuple[str, ...] = ()


OPTIMIZERS = {
    # He et al. 2016 (arXiv 1512.03385), section 4.2.
    "sgd": NamedOptimizer(0.1, 1e-4, settings=("momentum",)),
    # Touvron et al. 2021 (arXiv 2012.12877), table 9.
    "adamw": NamedOptimizer(1e-3, 0.05),
}


# What trains a user's own model.
USUAL_OPTIMIZER = "sgd"


def default_optimizer(model: str) -> str:
    """The optimizer of a model where the user gives none."""
    return MODELS[model].optimizer if model in MODELS else USUAL_OPTIMIZER


def is_user_model(model: str) -> bool:
    """Whether a model is meant as a file of the user's: it has a colon, a slash or `.py`."""
    return ":" in model or "/" in model or model.endswith(".py")


def user_model(model: str) -> tuple[Path, str]:
    """The file and the function of a user's model.

    Raises:
        InputError: It is not of the form `path/to/file.py:function`.
    """
    path, _, function = model.rpartition(":")
    # In --model=~/net.py the shell leaves it as it is.
    path = os.path.expanduser(path)
    if not path.endswith(".py") or not function.isidentifier():
        raise InputError(
            f"{setting('model', model)}: the part after the last colon must name a function, and "
            f"the part before it a Python file. {setting('model')} takes {USER_MODEL}, such as "
            "my_models.py:small_net."
        )
    return Path(path), function


def check_model(name: str, model: str) -> None:
    """Refuses a model that is neither in the catalogue nor of the form of a user's.

    Args:
        name: The setting that it is the value of.
        model: The model.

    Raises:
        InputError: As said. Whether a file is there is not asked.
    """
    if is_user_model(model):
        user_model(model)
    elif model not in MODELS:
        raise unknown_name("model", model, (*MODELS, USER_MODEL), name)


_TFDS_NAME = re.compile(r"[A-Za-z]\w*(/[\w.+-]+)?(:[\d.*]+)?")


def check_dataset(name: str, dataset: str) -> None:
    """Refuses what is neither in the catalogue nor of the form of a TFDS name.

    Args:
        name: The setting that it is the value of.
        dataset: The data set.

    Raises:
        InputError: As said. Whether TFDS knows the name is seen when the data are loaded.
    """
    if _TFDS_NAME.fullmatch(dataset):
        return
    near = nearest_names(dataset.replace("-", "_"), (*DATASETS, "cifar100", "fashion_mnist"))
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"{dataset!r} is no dataset name.{guess} {setting(name)} takes {', '.join(DATASETS)} or "
        "the name of a TFDS set as set, set/config or set/config:version, such as cifar100 or "
        "imagenette/160px-v2."
    )
