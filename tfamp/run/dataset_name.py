"""What a --dataset looks like, which is told before TensorFlow or TFDS is imported."""

from __future__ import annotations

import re

from tfamp.run.errors import InputError, nearest_names, setting

EMBEDDED = "fashion_mnist_mini"
SYNTHETIC = "synthetic"

_FORM = re.compile(r"[A-Za-z]\w*(/[\w.+-]+)?(:[\d.*]+)?")


def check(name: str) -> None:
    """Refuses what is neither tfamp's own set nor of the form of a TFDS name.

    Raises:
        InputError: As said. Whether TFDS knows the name is seen when the data are loaded.
    """
    if _FORM.fullmatch(name):
        return
    own = (EMBEDDED, SYNTHETIC)
    near = nearest_names(name.replace("-", "_"), (*own, "cifar100", "fashion_mnist"))
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"{name!r} is no dataset name.{guess} {setting('dataset')} takes {', '.join(own)} or the "
        "name of a TFDS set as set, set/config or set/config:version, such as cifar100 or "
        "imagenette/160px-v2."
    )
