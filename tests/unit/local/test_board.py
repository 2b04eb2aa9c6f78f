"""What is shown while something takes long."""

import io

import pytest

from portico.local.board import Board, Paint


class Terminal(io.StringIO):
    """An output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_each_beginning_and_end_once() -> None:
    """Where lines cannot be redrawn, drawing again without news prints nothing."""
    out = io.StringIO()
    board = Board(out)
    board.state("redis", "starting")
    for _ in range(3):
        board.draw()
    board.done("redis", "ready")
    board.close()
    first, second = out.getvalue().splitlines()
    assert "redis" in first
    assert "starting" in first
    assert "ready" in second
    assert "\033" not in out.getvalue()


def test_a_terminal_is_redrawn_in_place() -> None:
    """On a terminal the cursor goes back up over what was drawn."""
    out = Terminal()
    board = Board(out)
    board.state("redis", "starting")
    board.state("envoy", "starting")
    board.draw()
    assert "\033[2A" not in out.getvalue()
    board.draw()
    assert "\033[2A" in out.getvalue()


def test_a_long_state_does_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line longer than the terminal would break the redrawing, so it is cut."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    board = Board(out)
    board.state("redis", "x" * 200)
    board.draw()
    assert max(len(line) for line in out.getvalue().replace("\r\033[K", "").splitlines()) <= 60


@pytest.mark.parametrize(
    ("out", "variables", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    out: io.StringIO, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody finds escape sequences in a file, and NO_COLOR is honoured."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\033" in Paint(out)("red", "text")) is coloured
