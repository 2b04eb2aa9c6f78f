"""When Redis is left alone, and when it is tried again; time is a number here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.caching.circuit import PAUSE, SILENCE, Circuit

TIMEOUT = 0.05
LONG = SILENCE * TIMEOUT


@pytest.fixture
def closed() -> Circuit:
    """A circuit at time 0 whose Redis has answered."""
    circuit = Circuit(TIMEOUT)
    assert circuit.allows(0.0)
    circuit.succeeded(0.0)
    return circuit


def test_the_first_request_finds_out() -> None:
    """It starts open: one request asks, the others go on without, and its success closes the circuit for all."""
    circuit = Circuit(TIMEOUT)
    assert circuit.is_open
    assert [circuit.allows(0.0) for _ in range(3)] == [True, False, False]
    circuit.succeeded(0.01)
    assert not circuit.is_open
    assert [circuit.allows(0.02) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("failure", ["failed", "timed_out"])
def test_a_redis_that_was_never_there(failure: str) -> None:
    """A try that fails is followed by the next after a pause, and by no other before."""
    circuit = Circuit(TIMEOUT)
    for start in (0.0, PAUSE, 2 * PAUSE):
        assert [circuit.allows(start) for _ in range(2)] == [True, False]
        getattr(circuit, failure)(start)
        assert circuit.is_open
        assert not circuit.allows(start + 0.9 * PAUSE)
    assert circuit.allows(3 * PAUSE)


def test_a_redis_that_goes(closed: Circuit) -> None:
    """A refused connection opens the circuit at once; after the pause one request tries, and its success closes it."""
    closed.failed(1.0)
    assert closed.is_open
    assert not closed.allows(1.0 + 0.9 * PAUSE)
    assert [closed.allows(1.0 + PAUSE) for _ in range(2)] == [True, False]
    closed.succeeded(1.0 + PAUSE)
    assert closed.allows(1.0 + PAUSE)


def test_timeouts_of_a_burst(closed: Circuit) -> None:
    """Requests that time out while others are answered do not open the circuit, however many they are."""
    for step in range(1000):
        now = step * LONG / 2
        closed.timed_out(now)
        closed.timed_out(now)
        closed.succeeded(now)
    assert not closed.is_open


def test_a_redis_that_hangs(closed: Circuit) -> None:
    """A timeout opens the circuit once nothing at all has been answered for several timeouts' time."""
    closed.timed_out(0.9 * LONG)
    assert not closed.is_open
    closed.timed_out(1.1 * LONG)
    assert closed.is_open
    assert not closed.allows(1.1 * LONG)


def test_silence_counts_from_the_last_answer(closed: Circuit) -> None:
    """However long Redis has been there, a timeout soon after an answer does not open the circuit."""
    closed.succeeded(1000.0)
    closed.timed_out(1000.0 + 0.9 * LONG)
    assert not closed.is_open
    closed.timed_out(1000.0 + 1.1 * LONG)
    assert closed.is_open


def test_a_late_failure_puts_off_the_next_try(closed: Circuit) -> None:
    """Requests that were under way when the circuit opened, and fail after it, do not let another in early."""
    closed.failed(1.0)
    closed.failed(1.5)
    assert not closed.allows(1.0 + PAUSE)
    assert closed.allows(1.5 + PAUSE)


def test_an_answer_that_comes_late(closed: Circuit) -> None:
    """An answer to a request from before closes the circuit: Redis is there."""
    closed.failed(1.0)
    closed.succeeded(1.1)
    assert closed.allows(1.1)


def test_a_try_that_nobody_waited_for() -> None:
    """A request that is cancelled while it tries leaves the try to the next one, at once."""
    circuit = Circuit(TIMEOUT)
    assert circuit.allows(0.0)
    circuit.gave_up()
    assert circuit.is_open
    assert [circuit.allows(0.0) for _ in range(2)] == [True, False]


def test_giving_up_closes_and_opens_nothing(closed: Circuit) -> None:
    """A cancelled request tells nothing of Redis."""
    closed.gave_up()
    assert not closed.is_open
    assert closed.allows(0.0)


@given(st.lists(st.sampled_from(["succeeded", "timed_out", "failed", "gave_up", "allows"]), max_size=30))
def test_it_always_tries_again(events: list[str]) -> None:
    """Whatever has happened, once every request has said how it went, a pause later one may ask again."""
    circuit, now, asking = Circuit(TIMEOUT), 0.0, 0
    for event in events:
        now += 0.1
        if event == "allows":
            asking += circuit.allows(now)
        elif asking:
            getattr(circuit, event)(*([] if event == "gave_up" else [now]))
            asking -= 1
    for _ in range(asking):
        circuit.gave_up()
    assert circuit.allows(now + PAUSE)
