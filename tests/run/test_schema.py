"""One declaration of a file's keys: what is written, what is read back, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal

import pytest

from tfamp.run import schema
from tfamp.run.json_types import Exponent, Measured, Size
from tfamp.run.schema import RecordError, beside, key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    power: Measured = key("kilowatts")
    fuel: str | None = key("what it burns", absent=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trip:
    distances: tuple[float, ...] = key("kilometres")
    stops: int = key("stops")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repair:
    part: str = key("what was repaired")
    log2_cost: Exponent = key("log2 of what it cost")
    engine: Engine | None = key("what was built in", absent=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workshop(schema.JsonFile):
    file = "workshop.json"

    repairs: tuple[Repair, ...] = key("what was done")
    planned: tuple[Repair, ...] | None = key("what will be", absent=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Car(schema.JsonFile):
    file = "car.json"

    name: str = key("its name")
    kind: Literal["car", "van"] = key("its kind")
    is_new: bool = key("whether it is new")
    mass: Size | None = key("kilograms")
    engine: Engine | None = key("its engine")
    spares: dict[str, Engine] = key("others, by name", absent={})
    owners: tuple[str, ...] = key("who had it", absent=())
    notes: dict[str, Any] | None = key("anything", absent=None, left_out=True)
    trip: Trip | None = beside()


CAR = {
    "written_by": "tfamp",
    "schema_version": 1,
    "name": "Beetle",
    "kind": "car",
    "is_new": False,
    "mass": 800,
    "engine": {"power": 22.5, "fuel": "petrol"},
    "spares": {"old": {"power": 18.0, "fuel": None}},
    "owners": ["Ann", "Bob"],
    "notes": {"radio": [1, {"works": True}]},
    "distances": [1.5, "Infinity"],
    "stops": 2,
}


def test_a_file_comes_back_as_it_was_written(tmp_path):
    car = Car.from_json(CAR)
    assert car == Car(
        name="Beetle", kind="car", is_new=False, mass=800,
        engine=Engine(power=22.5, fuel="petrol"), spares={"old": Engine(power=18.0)},
        owners=("Ann", "Bob"), notes={"radio": [1, {"works": True}]},
        trip=Trip(distances=(1.5, math.inf), stops=2),
    )  # fmt: skip
    assert car.to_json() == CAR
    (tmp_path / "car.json").write_text(json.dumps(car.to_json(), allow_nan=False))
    assert Car.read(tmp_path / "car.json") == car


def test_what_is_not_finite_is_a_text_however_deep():
    found = schema.to_json(Trip(distances=(math.nan, -math.inf), stops=0))
    assert found == {"distances": ["NaN", "-Infinity"], "stops": 0}
    assert math.isnan(schema.parsed(Trip, found, "x").distances[0])


def test_what_is_left_out_and_what_is_null():
    car = Car(name="a", kind="van", is_new=True, mass=None, engine=None)
    assert set(CAR) - set(car.to_json()) == {"notes", "distances", "stops"}
    assert car.to_json()["engine"] is car.to_json()["mass"] is None
    assert Car.from_json(car.to_json()) == car


@pytest.mark.parametrize("name", ["mass", "engine", "spares", "owners", "notes"])
def test_a_key_that_an_older_file_lacks(name):
    older = {other: value for other, value in CAR.items() if other != name}
    value = getattr(Car.from_json(older), name)
    assert value == {"spares": {}, "owners": ()}.get(name)


def test_unknown_keys_are_passed_over():
    assert Car.from_json(CAR | {"of_a_later_version": 1}) == Car.from_json(CAR)


@pytest.mark.parametrize("name", ["spares", "owners", "notes"])
@pytest.mark.parametrize("value", [7, [1], {"old": {"power": "much"}}, None])
def test_what_a_reader_can_do_without_may_have_another_form(name, value):
    if name == "notes" and isinstance(value, dict):
        pytest.skip("anything is allowed there")
    assert getattr(Car.from_json(CAR | {name: value}), name) == {"spares": {}, "owners": ()}.get(
        name
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": 7}, "car.json has name=7 where a text belongs."),
        ({"name": None}, "name=None where a text"),
        ({"kind": "cart"}, "kind='cart' where car or van belongs"),
        ({"is_new": 1}, "is_new=1 where true or false"),
        ({"mass": 0}, "mass=0 where a number above 0"),
        ({"mass": True}, "mass=True"),
        ({"mass": "NaN"}, "mass='NaN'"),
        ({"engine": []}, r"engine=\[\] where an object"),
        ({"engine": {}}, "engine.power=None where a number above 0"),
        ({"engine": {"power": "NaN"}}, "engine.power=nan"),
        ({"distances": 1.5}, "distances=1.5 where a list of numbers belongs"),
        ({"distances": ["near"]}, r"distances=\['near'\] where a list of numbers"),
        ({"stops": -1}, "stops=-1 where a whole number"),
        ({"stops": 1.0}, "stops=1.0 where a whole number"),
        ({"schema_version": 2}, "car.json has schema version 2; this tfamp reads 1"),
        ({"schema_version": None}, "car.json has no schema version"),
    ],
)
def test_an_error_names_the_file_and_the_key(changes, expected):
    with pytest.raises(RecordError, match=expected):
        Car.from_json(CAR | changes)


@pytest.mark.parametrize("name", ["name", "kind", "is_new", "distances", "stops"])
def test_a_key_that_a_reader_relies_on(name):
    with pytest.raises(RecordError, match=f"{name}=None"):
        Car.from_json({other: value for other, value in CAR.items() if other != name})


def test_records_beside_are_there_with_any_of_their_keys():
    without = {name: value for name, value in CAR.items() if name not in ("distances", "stops")}
    assert Car.from_json(without).trip is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"There is no car\.json\."),
        ("{", r"car\.json cannot be read: .*line 1"),
        ("[1]", r"car\.json holds no JSON object\."),
        ("\xe9", r"car\.json cannot be read"),
    ],
)
def test_a_file_that_is_none(content, expected, tmp_path):
    if content is not None:
        (tmp_path / "car.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RecordError, match=expected) as raised:
        Car.read(tmp_path / "car.json")
    assert str(tmp_path) not in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "car.json").mkdir()
    with pytest.raises(RecordError, match=r"car\.json cannot be read: Is a directory\."):
        Car.read(tmp_path / "car.json")


def test_the_table_has_every_key_with_its_form():
    (table,) = schema.table(Car)
    assert table == [
        "| `name` | a text | its name |",
        "| `kind` | car or van | its kind |",
        "| `is_new` | true or false | whether it is new |",
        "| `mass` | a number above 0, or null | kilograms |",
        "| `engine` | an object, or null | its engine |",
        "| `engine.power` | a number above 0 | kilowatts |",
        "| `engine.fuel` | a text, or null | what it burns |",
        "| `spares` | an object | others, by name |",
        "| `owners` | a list of texts | who had it |",
        "| `notes` | an object, or null | anything |",
        "| `distances` | a list of numbers | kilometres |",
        "| `stops` | a whole number | stops |",
    ]


def test_a_record_that_several_keys_hold_is_told_once():
    @dataclasses.dataclass
    class Garage:
        cars: dict[str, Engine] = key("by name")

    _, table = schema.table(Car, Garage)
    assert table == ["| `cars` | an object | by name |"]
    assert "| `cars.NAME.power` | a number above 0 | kilowatts |" in schema.table(Garage)[0]


WORKSHOP = {
    "written_by": "tfamp",
    "schema_version": 1,
    "repairs": [
        {"part": "clutch", "log2_cost": -3, "engine": None},
        {"part": "engine", "log2_cost": 9, "engine": {"power": 22.5, "fuel": None}},
    ],
    "planned": [],
}


def test_a_list_of_records_comes_back_as_it_was_written():
    workshop = Workshop.from_json(WORKSHOP)
    assert workshop == Workshop(
        repairs=(
            Repair(part="clutch", log2_cost=-3),
            Repair(part="engine", log2_cost=9, engine=Engine(power=22.5)),
        ),
        planned=(),
    )
    assert workshop.to_json() == WORKSHOP


@pytest.mark.parametrize(
    ("repairs", "expected"),
    [
        ({}, r"repairs=\{\} where a list of objects belongs"),
        ([{"part": "clutch", "log2_cost": 1}, 7], "repairs.1=7 where an object belongs"),
        ([{"part": "clutch"}], "repairs.0.log2_cost=None where a whole number, or one below 0"),
        ([{"part": "clutch", "log2_cost": 0.5}], "repairs.0.log2_cost=0.5"),
    ],
)
def test_an_error_names_the_place_in_a_list_of_records(repairs, expected):
    with pytest.raises(RecordError, match=expected):
        Workshop.from_json(WORKSHOP | {"repairs": repairs})


def test_the_table_tells_the_records_of_a_list():
    assert schema.table(Workshop)[0] == [
        "| `repairs` | a list of objects | what was done |",
        "| `repairs.part` | a text | what was repaired |",
        "| `repairs.log2_cost` | a whole number, or one below 0 | log2 of what it cost |",
        "| `repairs.engine` | an object, or null | what was built in |",
        "| `repairs.engine.power` | a number above 0 | kilowatts |",
        "| `repairs.engine.fuel` | a text, or null | what it burns |",
        "| `planned` | a list of objects, or null | what will be |",
    ]
