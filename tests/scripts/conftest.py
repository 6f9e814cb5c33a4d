"""A checkout with a Python that only pretends, so that the scripts install in no time."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Files that the scripts read of a checkout.
READ = ("setup.cfg", "pyproject.toml", "constraints.txt")
DRIVER = "/proc/driver/nvidia/version"

# `python -m venv DIR` copies it to DIR, and there `-m pip install` leaves a package for each extra.
# $PIP_STUB says what becomes of pip: it hangs at a fifo before or while it installs, or fails.
PYTHON = r"""#!/usr/bin/env bash
venv=$(cd -- "$(dirname -- "$0")/.." && pwd)
site=$venv/lib/python3.11/site-packages
case "$*" in
  *version_info*) echo 3.11 ;;
  '-c import ensurepip, venv' | '-m pip --version') ;;
  '-m venv '*)
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"
    cp "$0" "$3/bin/python"
    ;;
  '-m pip install '*)
    echo "$*" >>"$PIP_CALLS"
    what=${*: -1}
    echo "Obtaining file://$PWD"
    for package in absl_py keras tensorflow; do
      echo "Collecting $package>=2.0 (from tfamp==0.1.0)"
      echo "  Downloading $package-2.21.0-cp311-none-any.whl (572.4 MB)"
    done
    case $PIP_STUB in
      hang_before) read -r _ <"$PIP_FIFO" ;;
      fail_before) echo 'ERROR: No matching distribution found' && exit 1 ;;
    esac
    echo 'Installing collected packages: keras, tensorflow, tfamp'
    mkdir -p "$site/keras.dist-info"
    case $PIP_STUB in
      hang_within) read -r _ <"$PIP_FIFO" ;;
      fail_within) echo 'ERROR: No space left on device' && exit 1 ;;
    esac
    mkdir -p "$site/tensorflow.dist-info"
    echo "$what" >"$site/installed"
    ;;
  *)
    [[ -f $site/installed ]] || { echo "No module named 'tensorflow.python'" >&2; exit 1; }
    echo "python $*"
    ;;
esac
"""


@dataclasses.dataclass
class Checkout:
    """A copy of what the scripts need, with stubs on the PATH, and a place for an environment."""

    root: Path
    stubs: Path
    environment: dict[str, str]

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def pip_calls(self) -> list[str]:
        """What each `pip install` was asked for: "." or ".[extra,...]"."""
        calls = self.stubs / "pip_calls"
        return (
            [line.split()[-1] for line in calls.read_text().splitlines()] if calls.exists() else []
        )

    def stub(self, name: str, script: str) -> None:
        (self.stubs / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (self.stubs / name).chmod(0o755)

    def gpu_appears(self) -> None:
        self.stub("nvidia-smi", 'echo "GPU 0: NVIDIA H100"')

    def start(self, script: str = "train.sh", *arguments: str, **variables: str):
        """Starts a script in a process group of its own."""
        return subprocess.Popen(
            [f"scripts/{script}", *arguments],
            cwd=self.root,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str = "train.sh", *arguments: str, **variables: str):
        """Runs a script to its end."""
        process = self.start(script, *arguments, **variables)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def end_while_pip_hangs(self, where: str, signum: signal.Signals) -> tuple[int, str]:
        """Starts an installation, sends all of it a signal once pip hangs; exit code and stderr."""
        process = self.start(PIP_STUB=f"hang_{where}")
        with (self.stubs / "fifo").open("w"):  # Blocks until pip reads.
            log = self.venv / "install.log"
            while (where, signum) == ("within", signal.SIGKILL) and process.poll() is None:
                # What pip has said comes to the log through a process of its own.
                if log.exists() and "Installing" in log.read_text():
                    break
            os.killpg(process.pid, signum)
            _, err = process.communicate(timeout=120)
        return process.returncode, err


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    root, stubs = tmp_path / "check out", tmp_path / "stubs"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in READ:
        shutil.copy(ROOT / name, root / name)
    # This machine may have a GPU; the checkout's has one when its test says so.
    venv = root / "scripts" / "venv.sh"
    assert DRIVER in venv.read_text()
    venv.write_text(venv.read_text().replace(DRIVER, str(tmp_path / "driver")))
    stubs.mkdir()
    os.mkfifo(stubs / "fifo")
    (stubs / "python3").write_text(PYTHON)
    (stubs / "python3").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG")}
    made = Checkout(
        root,
        stubs,
        kept
        | {
            "PATH": f"{stubs}:/usr/bin:/bin",
            "PIP_CALLS": str(stubs / "pip_calls"),
            "PIP_FIFO": str(stubs / "fifo"),
            "PIP_STUB": "",
        },
    )
    made.stub("nvidia-smi", "exit 9")
    return made
