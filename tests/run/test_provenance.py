from __future__ import annotations

import importlib.metadata
import platform
import subprocess

import pytest

import tfamp
from tfamp.run import provenance


def test_versions_are_those_of_what_runs():
    import keras
    import tensorflow as tf

    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["tfamp"] == tfamp.__version__
    assert found["tensorflow"] == tf.__version__
    assert found["keras"] == keras.__version__
    assert set(found) >= {"keras-cv", "tensorflow-datasets", "tensorboard", "numpy"}


def test_an_absent_package_is_left_out(monkeypatch):
    real = importlib.metadata.version

    def version(package):
        if package == "keras-cv":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "keras-cv" not in provenance.versions()
    assert "keras" in provenance.versions()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with a package in it, from which tfamp seems to run."""
    package = tmp_path / "tfamp"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(tfamp, "__file__", str(package / "__init__.py"))
    return tmp_path


def git(folder, *arguments):
    own = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "core.hooksPath="]
    done = subprocess.run(
        ["git", *own, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_revision_and_whether_it_was_changed(checkout):
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "One")
    git(checkout, "tag", "-a", "v1", "-m", "A tag does not hide the revision")
    revision = git(checkout, "rev-parse", "HEAD")
    assert provenance.git_revision() == revision
    (checkout / "tfamp" / "__init__.py").write_text("changed = True")
    assert provenance.git_revision() == f"{revision}-dirty"


def test_no_checkout_no_revision(checkout):
    assert provenance.git_revision() is None


def test_a_checkout_without_a_commit(checkout):
    git(checkout, "init", "-q")
    assert provenance.git_revision() is None


def test_no_git_no_revision(checkout, monkeypatch):
    (checkout / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert provenance.git_revision() is None
