"""What the composition root makes by itself: the form of the log."""

import logging

from portico.bootstrap import _OneLine


def logged(text: str, *args: object) -> str:
    """The line that is written."""
    record = logging.LogRecord("portico.x", logging.WARNING, __file__, 1, text, args, None)
    return _OneLine("%(levelname)s %(name)s: %(message)s").format(record)


def test_a_name_cannot_write_lines_of_its_own() -> None:
    """File names and model servers' words come into the log as text, whatever is in them."""
    assert logged("größer %s", "x") == "WARNING portico.x: größer x"
    assert logged("%s is odd", "a\nERROR forged\x1b[31m") == "WARNING portico.x: a\\nERROR forged\\x1b[31m is odd"
