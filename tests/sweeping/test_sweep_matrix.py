from __future__ import annotations

import re

import pytest

from tfamp.run.errors import InputError
from tfamp.sweeping import matrix
from tfamp.sweeping.matrix import Matrix, as_option


def read(*train_flags, **lists):
    return matrix.read({axis: lists.get(axis) for axis in matrix.AXES.values()}, train_flags)


def test_nothing_given():
    assert read() == Matrix(
        policies=("float32", "mixed_float16"),
        models=("resnet20",),
        datasets=("fashion_mnist_mini",),
        loops=("fit",),
        seeds=(0,),
        loss_scales=("dynamic",),
    )


def test_everything_given():
    assert read(
        "--epochs=3",
        policies="bfloat16, float16",
        models="vit_tiny,resnet18",
        datasets="synthetic,cifar100",
        loops="custom,fit",
        seeds="2,0,10",
        loss_scales="none,1024.0,dynamic,1e3,0.5,16777217",
    ) == Matrix(
        policies=("bfloat16", "float16"),
        models=("vit_tiny", "resnet18"),
        datasets=("synthetic", "cifar100"),
        loops=("custom", "fit"),
        seeds=(2, 0, 10),
        loss_scales=("none", "1024", "dynamic", "1000", "0.5", "16777217"),
    )


def test_only_float16_is_multiplied_by_loss_scales():
    policies = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
    assert Matrix(policies=policies, loss_scales=("none", "8")).variants == [
        ("float32", "dynamic"),
        ("mixed_float16", "none"),
        ("mixed_float16", "8"),
        ("mixed_bfloat16", "dynamic"),
        ("float16", "none"),
        ("float16", "8"),
        ("bfloat16", "dynamic"),
    ]


def test_a_flagfile_counts_where_the_sweep_says_nothing(tmp_path):
    file = tmp_path / "run.flags"
    file.write_text(
        "--model=vit_tiny\n--dataset=cifar100\n--seed=3\n--policy=float16\n--epochs=9\n"
    )
    read_from = (f"--flagfile={file}", "--epochs=1")
    assert read(*read_from) == Matrix(
        policies=("float16",), models=("vit_tiny",), datasets=("cifar100",), seeds=(3,)
    )
    assert read("--flagfile", str(file), models="resnet20", seeds="0,1") == Matrix(
        policies=("float16",), models=("resnet20",), datasets=("cifar100",), seeds=(0, 1)
    )


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"policies": "float33"}, "Unknown policy 'float33'. Did you mean 'float32'? --policies"),
        (
            {"policies": ""},
            "--policies='': an entry is empty. Give values with a comma",
        ),
        ({"policies": "float32,"}, "an entry is empty. .* such as --policies=float32."),
        ({"policies": "float32,float32"}, "--policies=float32,float32: 'float32' is there twice"),
        ({"models": "resnet21"}, "Unknown model 'resnet21'. Did you mean 'resnet20'? --models"),
        ({"models": "absent.py:f"}, "absent.py does not exist. --models takes path/to/file.py:fun"),
        ({"loops": "fits"}, "Unknown loop 'fits'. Did you mean 'fit'? --loops takes: fit, custom"),
        ({"seeds": "0,a"}, "--seeds=a: it must be a whole number, from 0 to 4294967295."),
        ({"seeds": "-1"}, "--seeds=-1: it must be from 0"),
        ({"seeds": "1.5"}, "--seeds=1.5: it must be a whole number"),
        ({"seeds": "0-2"}, "--seeds=0-2: it must be a whole number"),
        ({"seeds": "0,00"}, "--seeds=0,00: '00' is there twice"),
        ({"loss_scales": "fast"}, "--loss_scales=fast: it takes 'dynamic', 'none' or a number"),
        ({"loss_scales": "-8"}, "--loss_scales=-8: it takes 'dynamic'"),
        ({"loss_scales": "inf"}, "--loss_scales=inf: it takes 'dynamic'"),
        ({"loss_scales": "8,8.0"}, "--loss_scales=8,8.0: '8.0' is there twice"),
        (
            {"loss_scales": "8", "policies": "float32,bfloat16"},
            "--loss_scales=8 with --policies=float32,bfloat16: only float16 needs a loss scale. "
            "Add one of mixed_float16, float16 to --policies, or leave --loss_scales out.",
        ),
    ],
)
def test_what_is_refused(lists, message):
    with pytest.raises(InputError) as raised:
        read(**lists)
    wanted = re.escape(message).replace(r"\.\ \.\*\ ", r"\. .* ")
    assert re.search(wanted, raised.value.told(as_option)), raised.value


@pytest.mark.parametrize(
    ("train_flag", "instead"),
    [
        ("--policy=float32", "Set --policies=float32 before the '--' instead"),
        ("-policy=float32", "Set --policies=float32 before the '--' instead"),
        ("--model=resnet20", "Set --models=resnet20 before"),
        ("--dataset=synthetic", "Set --datasets=synthetic before"),
        ("--loop=fit", "Set --loops=fit before"),
        ("--seed=0", "Set --seeds=0 before"),
        ("--loss_scale=none", "Set --loss_scales=none before"),
        ("--logdir=x", "the sweep's first argument is the LOGDIR of every cell"),
        ("--run_name=x", "Leave --run_name out"),
        ("--", "A second '--' came"),
        ("--polcy=float32", "Unknown command line flag 'polcy'. Did you mean: policy"),
        ("epochs=3", "Unexpected argument 'epochs=3'"),
        ("--flagfile=absent", "absent"),
    ],
)
def test_what_the_sweep_sets_cannot_be_set_for_the_trainer(train_flag, instead):
    with pytest.raises(InputError, match=re.escape(instead)):
        read("--epochs=1", train_flag)
