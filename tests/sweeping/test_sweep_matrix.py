from __future__ import annotations

import pytest

from tests.messages import naming, says
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
        ({"policies": "float33"}, ("'float33'", "'float32'", "--policies")),
        ({"policies": ""}, ("--policies=''", "empty", "comma")),
        ({"policies": "float32,"}, ("--policies=float32,", "empty", "--policies=float32")),
        ({"policies": "float32,float32"}, ("--policies=float32,float32", "'float32'", "twice")),
        ({"models": "resnet21"}, ("'resnet21'", "'resnet20'", "--models")),
        ({"models": "absent.py:f"}, ("absent.py", "--models", "path/to/file.py:function")),
        ({"loops": "fits"}, ("'fits'", "'fit'", "--loops", "fit", "custom")),
        ({"seeds": "0,a"}, ("--seeds=a", "whole number", 0, 4294967295)),
        ({"seeds": "-1"}, ("--seeds=-1", 0, 4294967295)),
        ({"seeds": "1.5"}, ("--seeds=1.5", "whole number")),
        ({"seeds": "0-2"}, ("--seeds=0-2", "whole number")),
        ({"seeds": "0,00"}, ("--seeds=0,00", "'00'", "twice")),
        ({"loss_scales": "fast"}, ("--loss_scales=fast", "'dynamic'", "'none'", "number")),
        ({"loss_scales": "-8"}, ("--loss_scales=-8", "'dynamic'", "'none'", "number")),
        ({"loss_scales": "inf"}, ("--loss_scales=inf", "'dynamic'", "'none'", "number")),
        ({"loss_scales": "8,8.0"}, ("--loss_scales=8,8.0", "'8.0'", "twice")),
        (
            {"loss_scales": "8", "policies": "float32,bfloat16"},
            (
                *("--loss_scales=8", "--policies=float32,bfloat16"),
                *("mixed_float16", "float16", "--policies", "--loss_scales"),
            ),
        ),
    ],
)
def test_what_is_refused(lists, message):
    with pytest.raises(InputError) as raised:
        read(**lists)
    assert says(raised.value.told(as_option), *message)


@pytest.mark.parametrize(
    ("train_flag", "instead"),
    [
        ("--policy=float32", ("--policy=float32", "--policies=float32", "'--'")),
        ("-policy=float32", ("--policies=float32", "'--'")),
        ("--model=resnet20", ("--model=resnet20", "--models=resnet20", "'--'")),
        ("--dataset=synthetic", ("--dataset=synthetic", "--datasets=synthetic", "'--'")),
        ("--loop=fit", ("--loop=fit", "--loops=fit", "'--'")),
        ("--seed=0", ("--seed=0", "--seeds=0", "'--'")),
        ("--loss_scale=none", ("--loss_scale=none", "--loss_scales=none", "'--'")),
        ("--logdir=x", ("--logdir=x", "first argument", "LOGDIR")),
        ("--run_name=x", ("--run_name=x", "Leave --run_name out")),
        ("--", ("second '--'",)),
        ("--polcy=float32", ("flag 'polcy'", "policy")),
        ("epochs=3", ("Unexpected", "'epochs=3'")),
        ("--flagfile=absent", ("'absent'",)),
    ],
)
def test_what_the_sweep_sets_cannot_be_set_for_the_trainer(train_flag, instead):
    with pytest.raises(InputError, match=naming(*instead)):
        read("--epochs=1", train_flag)
