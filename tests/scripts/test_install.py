"""The scripts' environment: made once, anew after an interruption, with CUDA on a GPU."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.messages import says

INTERRUPTIONS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}


def test_the_first_run_installs_and_later_ones_start_at_once(checkout):
    first = checkout.run("train.sh", "--policy=mixed_float16")
    assert (first.returncode, first.stdout) == (0, "python -m tfamp.train --policy=mixed_float16\n")
    assert "installing TensorFlow and the rest" in first.stderr
    later = checkout.run()
    assert (later.returncode, later.stderr) == (0, "")
    assert checkout.pip_calls == ["."]


def test_the_installation_shows_how_far_it_is_and_keeps_the_log(checkout):
    said = checkout.run().stderr
    assert "tfamp: 3 packages found, downloading tensorflow (572.4 MB), " in said
    assert "\r" not in said and "\033" not in said
    log = (checkout.venv / "install.log").read_text()
    assert log.startswith(f"Obtaining file://{checkout.root}\nCollecting absl_py")
    assert log.endswith("Installing collected packages: keras, tensorflow, tfamp\n")


def test_on_a_terminal_one_line_moves(checkout):
    ours, theirs = pty.openpty()
    environment = checkout.environment | {"TERM": "dumb", "PIP_STUB": "hang_within"}
    with subprocess.Popen(
        ["scripts/train.sh"], cwd=checkout.root, env=environment, stdout=theirs, stderr=theirs
    ) as process:
        said = b""
        with (checkout.stubs / "fifo").open("w") as fifo:
            while b"of 3 packages" not in said:
                said += os.read(ours, 1024)
            fifo.write("go on\n")
        process.wait(timeout=120)
    assert said.count(b"\r\033[K") > 3
    assert b"\n" not in said[said.index(b"\r\033[K") :]


@pytest.mark.parametrize("where", ["before", "within"])
@pytest.mark.parametrize("signum", INTERRUPTIONS, ids=lambda signum: signum.name)
def test_an_interrupted_installation_is_made_anew(signum, where, checkout):
    code, err = checkout.end_while_pip_hangs(where, signum)
    assert code == INTERRUPTIONS[signum]
    said = "the installation was interrupted. The next run of a script begins it again, and finds"
    assert (said in err) == (signum != signal.SIGKILL)
    (checkout.venv / "broken").touch()
    again = checkout.run()
    assert (again.returncode, again.stdout) == (0, "python -m tfamp.train\n")
    assert "did not end; making it anew" in again.stderr
    assert not (checkout.venv / "broken").exists()
    assert checkout.run().stderr == ""


@pytest.mark.parametrize("where", ["before", "within"])
def test_a_failed_installation_says_so_and_is_made_anew(where, checkout):
    failed = checkout.run(PIP_STUB=f"fail_{where}")
    assert failed.returncode == 1 and failed.stdout == ""
    assert "ERROR: No" in failed.stderr
    assert f"the whole log is in {checkout.venv}/install.log" in failed.stderr
    again = checkout.run()
    assert again.returncode == 0 and "making it anew" in again.stderr


def test_what_an_older_tfamp_left_half_made_is_made_anew(checkout):
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "install.log").write_text(f"Looking\nObtaining file://{checkout.root}\n")
    done = checkout.run()
    assert done.returncode == 0 and "making it anew" in done.stderr


def test_what_an_older_tfamp_made_is_known_after_an_update_that_was_killed(checkout):
    checkout.run()
    (checkout.venv / "tfamp-environment").unlink()
    checkout.gpu_appears()
    checkout.end_while_pip_hangs("before", signal.SIGKILL)
    (checkout.venv / "install.log").write_text("")
    assert checkout.run().returncode == 0


def test_an_update_that_fails_before_it_changes_anything_leaves_what_works(checkout):
    checkout.run()
    (checkout.venv / "kept").touch()
    failed = checkout.run("test.sh", PIP_STUB="fail_before")
    assert failed.returncode == 1 and "bringing" in failed.stderr
    assert checkout.run().stderr == "", "the extra is not needed here"
    done = checkout.run("test.sh")
    assert done.returncode == 0 and "bringing" in done.stderr and "anew" not in done.stderr
    assert (checkout.venv / "kept").exists()
    assert checkout.pip_calls == [".", ".[test]", ".[test]"]


@pytest.mark.parametrize("how", ["fails", "is killed"])
def test_an_update_that_ends_half_way_is_made_anew(how, checkout):
    checkout.run()
    (checkout.root / "constraints.txt").write_text("numpy==2.4.6\n")
    if how == "fails":
        assert checkout.run(PIP_STUB="fail_within").returncode == 1
    else:
        checkout.end_while_pip_hangs("within", signal.SIGKILL)
    assert "making it anew" in checkout.run().stderr


def foreign_places(root: Path) -> dict[str, Path]:
    return {"a venv": root / ".venv", "a folder": root / "data", "a file": root / "notes"}


@pytest.mark.parametrize("kind", ["a venv", "a folder", "a file"])
def test_what_tfamp_did_not_make_is_refused_and_left_alone(kind, checkout):
    place = foreign_places(checkout.root)[kind]
    if kind == "a venv":
        subprocess.run([checkout.stubs / "python3", "-m", "venv", place], check=True)
    elif kind == "a folder":
        place.mkdir()
        (place / "install.log").write_text("mine\n")
    else:
        place.write_text("mine\n")
    before = sorted(place.rglob("*"))
    refused = checkout.run(TFAMP_VENV=str(place))
    assert refused.returncode == 1
    assert says(refused.stderr, place, "not made by tfamp's scripts", "TFAMP_VENV", "empty")
    assert place.exists() and sorted(place.rglob("*")) == before and checkout.pip_calls == []


def test_an_empty_folder_and_a_link_are_places(checkout):
    (checkout.root / "there").mkdir()
    (checkout.root / "link").symlink_to("there")
    assert checkout.run(TFAMP_VENV="link").returncode == 0
    (checkout.root / "there" / "tfamp-installed").unlink()
    assert "making it anew" in checkout.run(TFAMP_VENV="link").stderr
    assert (checkout.root / "link").is_symlink()


def test_no_cuda_without_a_gpu(checkout):
    assert "NVIDIA" not in checkout.run().stderr
    assert checkout.pip_calls == ["."]


@pytest.mark.parametrize("sign", ["nvidia-smi", "driver"])
def test_a_gpu_brings_cuda_and_says_so(sign, checkout, tmp_path):
    if sign == "nvidia-smi":
        checkout.gpu_appears()
    else:
        (tmp_path / "driver").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module\n")
    said = checkout.run().stderr
    assert says(said, "NVIDIA GPU", "installing", "CUDA", "TFAMP_EXTRAS=none")
    assert checkout.pip_calls == [".[cuda]"]
    assert checkout.run().stderr == ""


def test_a_gpu_that_appears_later_brings_cuda_once(checkout):
    checkout.run()
    checkout.gpu_appears()
    said = checkout.run().stderr
    assert said.count("NVIDIA GPU") == 1 and "bringing" in said
    assert checkout.pip_calls == [".", ".[cuda]"]
    assert checkout.run().stderr == ""


def test_none_keeps_cuda_out_and_is_remembered(checkout):
    checkout.gpu_appears()
    assert "NVIDIA" not in checkout.run(TFAMP_EXTRAS="none").stderr
    assert checkout.run().stderr == ""
    checkout.run("test.sh", TFAMP_EXTRAS="none, torch")
    assert checkout.pip_calls == [".", ".[test,torch]"]
    checkout.run(TFAMP_EXTRAS="cuda")
    assert checkout.pip_calls[2:] == [".[test,torch,cuda]"]


def test_none_makes_an_environment_with_cuda_anew(checkout):
    checkout.gpu_appears()
    checkout.run("test.sh")
    done = checkout.run(TFAMP_EXTRAS="none")
    assert says(done.stderr, "TFAMP_EXTRAS=none", "CUDA", f"making {checkout.venv}")
    assert checkout.pip_calls == [".[test,cuda]", ".[test]"]


def test_a_failed_cuda_installation_names_the_way_without(checkout):
    checkout.run()
    checkout.gpu_appears()
    failed = checkout.run(PIP_STUB="fail_before")
    assert failed.returncode == 1
    assert says(failed.stderr, "TFAMP_EXTRAS=none", "without CUDA")
    assert checkout.run(TFAMP_EXTRAS="none").returncode == 0


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ("cdua", ("TFAMP_EXTRAS", "'cdua'", "cuda")),
        ("none,cuda", ("TFAMP_EXTRAS", "both cuda and none")),
    ],
)
def test_extras_that_cannot_be_are_refused(extras, message, checkout):
    refused = checkout.run(TFAMP_EXTRAS=extras)
    assert refused.returncode == 1 and says(refused.stderr, *message)
    assert not checkout.venv.exists()


def test_another_script_waits_for_the_one_that_installs(checkout):
    first = checkout.start(PIP_STUB="hang_within")
    with (checkout.stubs / "fifo").open("w") as fifo:
        second = checkout.start()
        assert says(second.stderr.readline(), "waiting", "installing")
        fifo.write("go on\n")
    assert first.wait(timeout=120) == 0
    out, _ = second.communicate(timeout=120)
    assert out == "python -m tfamp.train\n"
    first.communicate()
    assert checkout.pip_calls == ["."]


@pytest.mark.parametrize(
    ("script", "started"),
    [("python.sh", "python"), ("report.sh", "python -m tfamp.report"),
     ("sweep.sh", "python -m tfamp.sweep"), ("train.sh", "python -m tfamp.train")],
)  # fmt: skip
def test_arguments_go_through_as_they_are(script, started, checkout):
    done = checkout.run(script, "a b", "--flag=*", "")
    assert done.stdout == f"{started} a b --flag=* \n"
