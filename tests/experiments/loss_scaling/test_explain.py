"""`--explain`: what the formats hold, what numbers become, and what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.loss_scaling import __main__ as lab
from experiments.loss_scaling import explain
from tests.messages import says
from tfamp.precision.formats import FORMATS

ROOT = Path(__file__).parents[3]


def run(capsys, *arguments):
    """Exit code, what was printed, and what was said on stderr."""
    code = lab.main(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


def lines_of(text, typed):
    """{format: (value, words)} of the block of a number."""
    _, _, block = text.partition(f"\n\n{typed}")
    block = block.partition("\n\n")[0]
    found = re.findall(r"^  (\w+) +(\S+)  (.+)$", block, re.MULTILINE)
    return {name: (value, words) for name, value, words in found}


def test_the_table_has_every_format_with_its_limits(capsys):
    code, printed, _ = run(capsys, "--explain")
    assert code == 0
    rows = {line.split()[0]: line for line in printed.splitlines()[1 : 1 + len(FORMATS)]}
    assert list(rows) == list(FORMATS)
    assert says(rows["float16"], "16:", "1+5+10", "65504", "2^-14", "2^-24", "2^-10", "3.31")
    assert says(rows["bfloat16"], "16:", "1+8+7", "3.3895e+38", "2^-126", "2^-133", "2^-7", "2.41")
    assert says(rows["tf32"], "19:", "1+8+10", "2^-126", "2^-10", "3.31")
    assert says(rows["float8_e4m3"], "8:", "1+4+3", "448", "2^-6", "2^-9", "0.125")
    assert says(printed, "tf32:", "ties to even", "cvt.rna", "float8_e4m3:", "e4m3fn", "240")
    assert max(map(len, printed.splitlines())) <= 106


@pytest.mark.parametrize(
    ("typed", "name", "value", "words"),
    [
        ("1e-8", "float16", "0", ("zero", "half", "2^-24")),
        ("1e-8", "bfloat16", "1.00117177e-08", ("rounded", "0.117 %", "2^-34")),
        ("1e-8", "float64", "1e-08", ("exact",)),
        ("70000", "float16", "inf", ("infinite", "65504")),
        ("70000", "bfloat16", "70144", ("rounded", "512")),
        ("70000", "float8_e4m3", "nan", ("NaN", "448", "no infinity")),
        ("1e-5", "float16", "1.00135803e-05", ("subnormal", "0.136 %", "2^-14")),
        ("2^-24", "float16", "5.96046448e-08", ("subnormal", "exact", "2^-14")),
        ("2**-25", "float16", "0", ("zero",)),
        ("-2^-24", "float16", "-5.96046448e-08", ("subnormal",)),
        ("-1e-8", "float16", "-0", ("zero",)),
        ("0", "float16", "0", ("exact",)),
        ("inf", "float16", "inf", ("infinite", "as it was")),
        ("-inf", "float8_e4m3", "nan", ("NaN", "448", "no infinity")),
        ("nan", "float16", "nan", ("NaN", "as it was")),
        ("2^1023", "float32", "inf", ("infinite", "3.40282e+38")),
    ],
)
def test_what_a_number_becomes(typed, name, value, words, capsys):
    code, printed, _ = run(capsys, "--explain", "1", typed)
    assert code == 0
    found = lines_of(printed, typed)
    assert list(found) == list(FORMATS)
    assert found[name][0] == value
    assert says(found[name][1], *words)


def test_a_number_is_shown_beside_its_power_of_two(capsys):
    _, printed, _ = run(capsys, "--explain", "1e-8", "-3", "0")
    assert "\n1e-8 is 1.3422 x 2^-27\n" in printed
    assert "\n-3 is -1.5 x 2^1\n" in printed
    assert "\n0\n" in printed


@pytest.mark.parametrize(
    "text", ["5e-324", "2^-1074", "1.7976931348623157e308", "0e5", ".5", "1e-8"]
)
def test_numbers_that_float64_holds_are_read(text):
    expected = 2.0**-1074 if text == "2^-1074" else float(text)
    assert explain.number(text) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--explain", "1", "abc"), ("'abc'", "no number", "1e-8", "2^-24", "--explain")),
        (("--explain", ""), ("''", "no number")),
        (("--explain", "1e400"), ("'1e400'", "float64", "1.79769e+308")),
        (("--explain", "-1e-400"), ("'-1e-400'", "float64", "4.94e-324")),
        (("--explain", "2^1024"), ("'2^1024'", "float64")),
        (("--explain", "2^-1075"), ("'2^-1075'", "float64")),
        (("--explain", "--precision=3"), ("'precision'", "--explain")),
        (("--explain", "-x"), ("'x'", "--explain")),
        ((), ("PART", "experiments.loss_scaling")),
        (("explane",), ("'explane'", "Did you mean", "'explain'")),
        (("--zebra",), ("'zebra'", "explain")),
    ],
)
def test_bad_input_is_one_message(arguments, expected, capsys):
    code, printed, told = run(capsys, *arguments)
    assert (code, printed) == (2, "")
    message, help_line = told.splitlines()
    assert message.startswith("tfamp: ") and says(message, *expected)
    assert "--help" in help_line


@pytest.mark.parametrize("arguments", [("--help",), ("--explain", "--help")])
def test_help(arguments, capsys):
    code, printed, _ = run(capsys, *arguments)
    assert code == 0
    assert "usage: " in printed and "experiments.loss_scaling" in printed


def test_every_part_has_a_module_with_a_main():
    for part in lab.PARTS.values():
        assert (ROOT / "experiments" / "loss_scaling" / f"{part.module}.py").exists()
    assert says(lab.COMMAND.about, *lab.PARTS)


def test_it_is_typed_as_printed_and_needs_no_tensorflow():
    program = (
        "import runpy, sys; sys.argv = ['x', '--explain', '1e-8', '70000']\n"
        "try: runpy.run_module('experiments.loss_scaling', run_name='__main__')\n"
        "except SystemExit as end: print('code', end.code, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stdout.endswith("code 0 False\n")
    assert says(done.stdout, "1e-8", "70000 is")
