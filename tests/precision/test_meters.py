"""What is wrapped around a step."""

from tfamp.precision.meters import metered


class Noting:
    """A meter that writes down when it is called."""

    def __init__(self, name, said):
        self.name, self.said = name, said

    def before(self):
        self.said.append(f"{self.name} before")
        return [self.name]

    def after(self, before):
        self.said.append(f"{before[0]} after")


def test_the_first_meter_is_the_outermost_and_gets_what_it_returned():
    said = []

    def step(batch, scale=1):
        said.append("step")
        return batch * scale

    measured = metered(step, [Noting("first", said), Noting("second", said)])
    assert measured(2, scale=3) == 6
    assert said == ["first before", "second before", "step", "second after", "first after"]


def test_without_meters_a_step_is_itself():
    assert metered(len, []) is len
