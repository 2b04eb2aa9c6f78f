"""`Drain`: which gateways are waited for. How the loop goes by it is in test_reconcile.py."""

from portico.acknowledgements import GOODBYE, Acknowledgement
from portico.controller.drain import Drain


def test_a_gateway_that_says_goodbye_is_not_waited_for() -> None:
    """What it used is drained at once, and it is not among the silent ones, now or later."""
    drain = Drain(grace=0, silence=60, listen=0)
    assert drain.hear({"g": Acknowledgement(1, frozenset({"iris--1"}))}, 0) == []
    assert drain.drained({"iris--1"}, 1, 0) == set()
    assert drain.hear({"g": GOODBYE}, 1) == []
    assert drain.drained({"iris--1"}, 1, 1) == {"iris--1"}
    assert drain.hear({}, 100) == []


def test_only_the_gateway_that_says_goodbye_is_not_waited_for() -> None:
    """Another one still uses the same servable; one of the same name that comes after it counts again."""
    drain, busy = Drain(grace=0, silence=60, listen=0), Acknowledgement(1, frozenset({"iris--1"}))
    drain.hear({"g": busy, "h": busy}, 0)
    drain.hear({"g": GOODBYE, "h": busy}, 1)
    assert drain.drained({"iris--1"}, 1, 1) == set()
    drain.hear({"g": busy, "h": GOODBYE}, 2)
    assert drain.drained({"iris--1"}, 1, 2) == set()
    drain.hear({"g": GOODBYE, "h": GOODBYE}, 3)
    assert drain.drained({"iris--1"}, 1, 3) == {"iris--1"}
