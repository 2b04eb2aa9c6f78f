"""The calls that the demo prints."""

import json
import shlex

import pytest

from portico.local import demo
from portico.local.demo import Call


@pytest.mark.parametrize("curl", [True, False])
def test_every_call_is_one_shell_command_with_valid_json(curl: bool) -> None:
    """What is printed survives a shell: its JSON arguments are still JSON after quoting."""
    for call in demo.calls(8080, curl):
        words = shlex.split(call.command)
        assert words[0] == ("curl" if curl and "REST" in call.heading else words[0])
        for word in words:
            if word.startswith("{"):
                json.loads(word)


def test_only_what_is_printed_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer under a command is that command's output; calls of models that are not there are left out."""
    calls = [
        Call("Iris", "iris", "echo one answer"),
        Call("Digits", "digits", "echo another"),
        Call("Bad", "iris", "false"),
    ]
    monkeypatch.setattr(demo, "calls", lambda port, curl: calls)
    written: list[str] = []
    assert not demo.show(8080, {"iris"}, written.append)
    text = "".join(written)
    assert "$ echo one answer\n  one answer\n" in text
    assert "another" not in text
    assert "That call failed (exit code 1)" in text
