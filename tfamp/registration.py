"""Lets Keras find tfamp's classes in a saved model after a bare `import tfamp`.

Keras looks a custom class up by its registered name, and the registering decorator runs only when
the class's module is imported, which `import tfamp` does not do: it would bring in TensorFlow. So
a stand-in is registered under each name, which imports the class when a file asks for it. The
decorator then puts the class itself in the stand-in's place.

Stand-ins go through `keras.saving.get_custom_objects()`, which is public, so Keras must be there.
Where it is not imported yet, a finder waits in `sys.meta_path` for that import and takes itself
out again: no other place is visited between `import keras` and `load_model`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "tfamp"

# Every class that a saved model can name, and its module. A test compares it with the decorators.
MODULES = {
    "Attention": "tfamp.models.vit_layers",
    "ClassToken": "tfamp.models.vit_layers",
    "LossScaleOptimizer": "tfamp.precision.loss_scale",
    "PaddedShortcut": "tfamp.models.resnet",
    "PatchEmbedding": "tfamp.models.vit_layers",
    "RecordedOptimizer": "tfamp.precision.recorded_optimizer",
    "TransformerEncoder": "tfamp.models.vit_layers",
}

# Names in files of before, and what the class is called now.
RENAMED = {"UnscaledOptimizer": "RecordedOptimizer"}


class StandIn:
    """Stands for a class until a saved model asks for one of its objects."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __repr__(self) -> str:
        return f"<stands for {self._module}.{self._name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Makes an object of the class."""
        return self._imported()(*args, **kwargs)

    def from_config(self, config: dict[str, Any]) -> Any:
        """Makes an object of the class from its config, which is all that Keras asks for."""
        return self._imported().from_config(config)

    def _imported(self) -> Any:
        return getattr(importlib.import_module(self._module), self._name)


def register() -> None:
    """Registers the stand-ins now if Keras is imported, else as soon as it is."""
    if sys.modules.get("keras"):
        _register_now()
    elif not any(isinstance(finder, _WaitsForKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WaitsForKeras())


def _register_now() -> None:
    known = importlib.import_module("keras.saving").get_custom_objects()
    for name, module in MODULES.items():
        # A class that is there already stays.
        known.setdefault(f"{PACKAGE}>{name}", StandIn(module, name))
    for old, name in RENAMED.items():
        known.setdefault(f"{PACKAGE}>{old}", StandIn(MODULES[name], name))


class _WaitsForKeras:
    """Finds the module `keras` as every other finder would, and registers once it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        for finder in sys.meta_path:
            # A finder of the old kind has no find_spec; the import system passes it over too.
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _ThenRegisters(spec.loader, self)
                return spec
        return None


class _ThenRegisters:
    """Keras's loader, for as long as Keras is loaded by it."""

    def __init__(self, loader: Any, waiting: _WaitsForKeras) -> None:
        self._loader = loader
        self._waiting = waiting

    def __getattr__(self, name: str) -> Any:
        # Some look for Keras without importing it, and ask its loader for a file's name.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module looks as if nobody had been between.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        # Not before: where Keras fails to load, the next attempt is waited for.
        if self._waiting in sys.meta_path:
            sys.meta_path.remove(self._waiting)
        _register_now()
