"""When schedules run: against a simple oracle, and over clocks that jump."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intermodal.scheduling.schedules import ScheduleState, advance, begin, parse
from modal.exception import InvalidError
from modal.schedule import Cron, Period

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_NAMES = {
    3: ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    4: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def said(when: float) -> str:
    return datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def runs(schedule: Cron | Period, begun: str, count: int) -> list[str]:
    """The first due times after a deployment."""
    state, found = begin(parse(schedule._spec()), at(begun)), []
    for _ in range(count):
        due, state = advance(state, state.next_run)
        assert due is not None
        found.append(said(due))
    return found


# -- cron --------------------------------------------------------------------------------------------------------------


def test_the_examples_of_the_reference_run_when_it_says() -> None:
    assert runs(Cron("5 4 * * *"), "2026-03-01 04:05:00", 2) == ["2026-03-02 04:05:00", "2026-03-03 04:05:00"]
    assert runs(Cron("0 9 * * 4"), "2026-11-26 09:00:00", 2) == ["2026-12-03 09:00:00", "2026-12-10 09:00:00"]
    assert runs(Cron("* * * * *"), "2026-12-31 23:58:30", 2) == ["2026-12-31 23:59:00", "2027-01-01 00:00:00"]


def test_two_restricted_days_are_alternatives() -> None:
    expected = ["2026-06-12 00:00:00", "2026-06-13 00:00:00", "2026-06-19 00:00:00"]
    assert runs(Cron("0 0 13 * fri"), "2026-06-06 00:00:00", 3) == expected


def test_the_29th_of_february_is_waited_for() -> None:
    assert runs(Cron("0 0 29 2 *"), "2097-01-01 00:00:00", 1) == ["2104-02-29 00:00:00"]


@st.composite
def items(draw: st.DrawFn, field: int) -> tuple[str, set[int]]:
    low, high = _RANGES[field]

    def word(value: int) -> str:
        names = _NAMES.get(field, ())
        position = value - low
        return (
            draw(st.sampled_from([names[position], names[position].upper()]))
            if draw(st.booleans()) and position < len(names)
            else str(value)
        )

    kind = draw(st.sampled_from(["*", "one", "range", "*/", "one/", "range/"]))
    step = draw(st.integers(1, high - low)) if kind.endswith("/") else 1
    first = low if kind[0] == "*" else draw(st.integers(low, high - 1))
    last = draw(st.integers(first + 1, high)) if kind.startswith("range") else first if kind == "one" else high
    text = {"*": "*", "o": word(first), "r": f"{word(first)}-{word(last)}"}[kind[0]]
    return text + (f"/{step}" if kind.endswith("/") else ""), set(range(first, last + 1, step))


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, list[set[int]]]:
    texts, values = [], []
    for field in range(5):
        parts = draw(st.lists(items(field), min_size=1, max_size=3)) if draw(st.booleans()) else [("*", None)]
        low, high = _RANGES[field]
        texts.append(",".join(text for text, _ in parts))
        values.append(set().union(*(found or range(low, high + 1) for _, found in parts)))
    return " ".join(texts), values


def first_match(text: str, values: list[set[int]], after: float) -> float | None:
    """The next due time, day by day."""
    minutes, hours, days, months, weekdays = values
    fields = text.split()
    need_both = fields[2].startswith("*") or fields[4].startswith("*")
    begun = datetime.fromtimestamp(after, timezone.utc)
    day = begun.replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(366 * 41):
        by_week = day.isoweekday() in weekdays or day.isoweekday() % 7 in weekdays
        by_month = day.day in days
        if day.month in months and (by_week and by_month if need_both else by_week or by_month):
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    due = day.replace(hour=hour, minute=minute)
                    if due > begun:
                        return due.timestamp()
        day += timedelta(days=1)
    return None


@settings(max_examples=80, deadline=None)
@given(expressions(), st.integers(int(at("1970-01-02 00:00:00")), int(at("2150-01-01 00:00:00"))))
def test_cron_agrees_with_a_calendar(made: tuple[str, list[set[int]]], after: int) -> None:
    text, values = made
    try:
        schedule = parse(Cron(text)._spec())
    except InvalidError:
        assert first_match(text, values, after) is None
        return
    due = schedule.next_run(after, after)
    assert said(due) == said(first_match(text, values, after) or 0.0)
    assert schedule.last_run(0.0, due) == due
    assert schedule.last_run(due - 1, due + 0.5) == due
    assert (schedule.last_run(0.0, due - 1) or 0.0) <= after


_TOKENS = st.sampled_from(
    [
        "*",
        "0",
        "1",
        "7",
        "8",
        "12",
        "13",
        "23",
        "24",
        "30",
        "31",
        "32",
        "59",
        "60",
        "90",
        "007",
        "-",
        "-",
        "/",
        "/",
        ",",
    ]
    + [
        "mon",
        "SUN",
        "jan",
        "Feb",
        "L",
        "W",
        "#",
        "5L",
        "LW",
        "?",
        "x",
        "\u017fun",
        "²",
        "+1",
        "@daily",
        "\t",
        "\0",
        "é",
    ]
)
_LOOSE_FIELDS = st.lists(_TOKENS, min_size=1, max_size=4).map("".join)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.lists(_LOOSE_FIELDS, min_size=4, max_size=6).map(" ".join),
        st.tuples(st.integers(0, 4), _LOOSE_FIELDS).map(
            lambda one: " ".join(["*"] * one[0] + [one[1]] + ["*"] * (4 - one[0]))
        ),
        st.tuples(_LOOSE_FIELDS, _LOOSE_FIELDS, _LOOSE_FIELDS).map(lambda days: "0 0 " + " ".join(days)),
        expressions().map(lambda made: made[0]),
        st.text(max_size=20),
    )
)
def test_client_and_server_accept_the_same_expressions(text: str) -> None:
    try:
        spec = Cron(text)._spec()
    except InvalidError:
        with pytest.raises(InvalidError):
            parse({"cron": text})
    else:
        assert parse(spec).next_run(0.0, 0.0) > 0


@pytest.mark.parametrize(
    "spec",
    [{}, {"cron": 5}, {"cron": "* * * * *", "period": {}}, {"cron": "0 0 31 2 *"}, {"cron": "9" * 5000 + " * * * *"}]
    + [{"period": parts} for parts in (None, {}, {"days": -1}, {"days": 1.5}, {"days": True}, {"seconds": math.nan})]
    + [{"period": parts} for parts in ({"fortnights": 1}, {"seconds": 0.5}, {"years": 1001}, {"weeks": 10**400})],
)
def test_a_hostile_schedule_is_an_error(spec: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        parse(spec)


# -- periods -----------------------------------------------------------------------------------------------------------


def test_a_monthly_run_that_began_on_the_31st_stays_at_the_ends_of_the_months() -> None:
    assert runs(Period(months=1), "2027-12-31 12:00:00", 5) == [
        "2028-01-31 12:00:00",
        "2028-02-29 12:00:00",
        "2028-03-31 12:00:00",
        "2028-04-30 12:00:00",
        "2028-05-31 12:00:00",
    ]


def test_years_months_and_the_rest_add_up() -> None:
    assert runs(Period(years=1), "2024-02-29 00:00:00", 4)[::3] == ["2025-02-28 00:00:00", "2028-02-29 00:00:00"]
    assert runs(Period(months=1, days=1, hours=2), "2026-01-30 00:00:00", 2) == [
        "2026-03-01 02:00:00",
        "2026-04-01 04:00:00",
    ]
    assert runs(Period(weeks=1, minutes=30), "2026-01-01 00:00:00", 1) == ["2026-01-08 00:30:00"]


def test_fractional_seconds_do_not_drift() -> None:
    state = begin(parse(Period(seconds=math.pi)._spec()), 1000.0)
    for _ in range(1000):
        due, state = advance(state, state.next_run)
    assert due == pytest.approx(1000 + 1000 * math.pi)


periods = st.builds(
    Period,
    years=st.integers(0, 2),
    months=st.integers(0, 13),
    weeks=st.integers(0, 3),
    days=st.integers(0, 40),
    hours=st.integers(0, 30),
    minutes=st.integers(0, 90),
    seconds=st.floats(1, 1e5),
)


@settings(max_examples=150, deadline=None)
@given(periods, st.floats(0, 4e9), st.floats(0, 1e9))
def test_periods_are_counted_from_their_anchor(period: Period, anchor: float, later: float) -> None:
    schedule = parse(period._spec())
    anchor = round(anchor, 3)
    due = schedule.next_run(anchor, anchor + later)
    before = schedule.last_run(anchor, anchor + later)
    assert (before or anchor) <= anchor + later < due
    assert schedule.last_run(anchor, due) == due
    assert schedule.next_run(anchor, before or anchor) == due
    days = schedule.months * 31 + schedule.seconds / DAY
    assert 0 < due - (before or anchor) <= (days + 3) * DAY


# -- a clock that jumps ------------------------------------------------------------------------------------------------


class World:
    """What the server's loop does, on a clock that can be set: look, and make a run that was not made yet."""

    def __init__(self, schedule: Cron | Period, now: float) -> None:
        self.now = now
        self.schedule = parse(schedule._spec())
        self.state: ScheduleState = begin(self.schedule, now)
        self.made: list[float] = []

    def look(self) -> bool:
        due, self.state = advance(self.state, self.now)
        if due is None or due in self.made:
            return False
        self.made.append(due)
        return True

    def pass_time(self, seconds: float, step: float = 10.0) -> int:
        """Let it run; returns how many runs were made."""
        made = 0
        for _ in range(int(seconds / step)):
            self.now += step
            made += self.look()
        return made


@pytest.fixture(params=[Cron("* * * * *"), Period(minutes=1)], ids=["cron", "period"])
def world(request: pytest.FixtureRequest) -> World:
    made = World(request.param, at("2026-01-01 12:00:00"))
    assert made.pass_time(10 * MINUTE) == 10
    return made


def test_what_was_missed_runs_once(world: World) -> None:
    world.now += 3 * DAY
    assert world.look()
    assert world.pass_time(10 * MINUTE) == 10


def test_a_clock_set_back_an_hour_repeats_nothing_and_loses_nothing_later(world: World) -> None:
    world.now -= 5 * MINUTE
    assert world.pass_time(5 * MINUTE) == 0
    assert world.pass_time(10 * MINUTE) == 10


def test_a_clock_that_was_years_ahead_does_not_stop_the_schedule_for_years(world: World) -> None:
    world.now = at("2036-01-01 12:00:00")
    assert world.pass_time(2 * MINUTE) >= 2
    world.now = at("2026-01-01 12:30:00")
    assert world.pass_time(5 * MINUTE) >= 4
    world.now = at("2020-01-01 12:30:00")  # before the deployment
    assert world.pass_time(5 * MINUTE) >= 4


def test_a_run_a_day_is_at_the_same_time_every_day() -> None:
    world = World(Period(days=1), at("2026-01-01 08:30:00"))
    assert world.pass_time(30 * DAY, step=600) == 30
    assert {said(due)[11:] for due in world.made} == {"08:30:00"}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(
        [Cron("* * * * *"), Cron("*/7 3-5 * * 1"), Cron("0 0 29 2 *"), Period(minutes=1), Period(months=1)]
    ),
    st.lists(st.tuples(st.sampled_from(["pass", "jump"]), st.floats(-2e8, 2e8)), max_size=30),
)
def test_no_jump_makes_a_storm_or_a_double(schedule: Cron | Period, steps: list[tuple[str, float]]) -> None:
    world = World(schedule, at("2026-01-01 12:00:00"))
    for kind, amount in steps:
        world.now += abs(amount) % 100 if kind == "pass" else amount
        if world.now < 0:
            world.now = 1e6
        world.look()
        again = [world.look() for _ in range(3)]
        assert not any(again)  # one look, one run at most
        assert world.now < world.state.next_run == world.schedule.next_run(world.state.anchor, world.now)
    assert len(world.made) == len(set(world.made)) <= len(steps)
