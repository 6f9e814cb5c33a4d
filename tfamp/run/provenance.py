"""What a run was made with: versions, revision, command line."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import tfamp

_PACKAGES = ("tensorflow", "keras", "keras-cv", "tensorflow-datasets", "tensorboard", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, tfamp and what it stands on; an absent package is left out."""
    found = {"python": platform.python_version(), "tfamp": tfamp.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The revision of the checkout that tfamp runs from, with `-dirty` after a change.

    None where tfamp was installed from a wheel or git is not there.
    """
    root = Path(tfamp.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
