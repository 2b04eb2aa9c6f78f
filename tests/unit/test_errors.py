"""The tree of errors: what its docstring draws is what there is, and its messages help."""

import inspect
import re

from portico import errors


def drawn() -> dict[str, str]:
    """Child → parent, as the module's docstring draws them."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:│   |    )*(?:├── |└── )?)([A-Z]\w+)", line)
        if found is None:
            continue
        depth, name = len(found[1]) // 4, found[2]
        del above[depth:]
        if above:
            parents[name] = above[-1]
        above.append(name)
    return parents


def test_the_drawn_tree_is_the_real_tree() -> None:
    """Each error class stands in the docstring, under its own base class, and nothing else does."""
    found = inspect.getmembers(errors, lambda member: inspect.isclass(member) and issubclass(member, Exception))
    classes = {name: kind for name, kind in found if kind.__module__ == errors.__name__}
    assert drawn() == {
        name: kind.__base__.__name__ for name, kind in classes.items() if kind is not errors.PorticoError
    }
    assert len(drawn()) > 5


def test_unknown_model_names_the_closest() -> None:
    """A mistyped model name is answered with the names that are closest, and not with all."""
    message = str(errors.ModelNotFound.named("irsi", ["digits", "iris", "resnet"]))
    assert "'irsi'" in message
    assert "Did you mean iris?" in message
    assert "digits" not in message


def test_unknown_model_far_from_all() -> None:
    """A name that resembles none is answered with a few that there are."""
    message = str(errors.ModelNotFound.named("zzz", ["b", "a", "d", "c"]))
    assert "There are a, b, c and others." in message


def test_unknown_model_in_an_empty_repository() -> None:
    """Where there is no model at all, the message says that."""
    assert "The model repository is empty." in str(errors.ModelNotFound.named("iris", []))


def test_unknown_model_in_the_words_that_clients_match_on() -> None:
    """TF Serving's own words stand at the start, because its clients look for them."""
    assert str(errors.ModelNotFound.named("x", ["y"])).startswith("Servable not found for request: Latest(x)")


def test_unknown_model_with_a_name_of_megabytes() -> None:
    """A name as long as a request is cut, and the names there are stay in what the client reads."""
    message = str(errors.ModelNotFound.named("x" * 5_000_000, ["iris", "digits"]))
    assert len(message) < 500
    assert "There are digits, iris." in message


def test_a_long_message_is_cut() -> None:
    """A message that repeats what the client sent keeps its two ends, and is never as long as a request."""
    message = str(errors.InvalidRequest("start" + "x" * 5_000_000 + "end"))
    assert len(message) <= errors.LONGEST_MESSAGE + 3
    assert message.startswith("startx")
    assert message.endswith("xend")
    whole = "x" * errors.LONGEST_MESSAGE
    assert str(errors.InvalidRequest(whole)) == whole


def test_too_large_says_the_limit_and_how_to_raise_it() -> None:
    """Whoever sends too much reads how much is allowed, and which setting allows more."""
    message = str(errors.TooLarge(1234))
    assert "1234 bytes" in message
    assert "PORTICO_MAX_MESSAGE_BYTES" in message
