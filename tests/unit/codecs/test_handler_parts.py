"""Named parts as a form. That TorchServe reads the same from it is shown in tests/stack/test_torchserve_clients.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.handler import in_parts, parts_of, request_body
from portico.errors import InvalidRequest
from portico.inference import Form, InferenceRequest, Tensor, pack_bytes
from portico.routing import Wire
from sample_gateway import tensor

NAMES = st.text("abz019._-[]()'/ ß中%&+", min_size=1, max_size=8).filter(lambda name: name == name.strip())


def part(name: str, content: bytes, shape: tuple[int, ...] = (1,)) -> Tensor:
    return Tensor(name, "BYTES", shape, pack_bytes([content]))


def named(parts: dict[str, bytes], form: Form = Form.PARTS) -> InferenceRequest:
    return InferenceRequest(tuple(part(name, content) for name, content in parts.items()), form=form)


@given(st.dictionaries(NAMES, st.binary() | st.sampled_from([b"\r\n", b"--", b"\r\n--\r\n"]), min_size=1))
def test_a_form(parts: dict[str, bytes]) -> None:
    """Each part stands in the form once, under its name and byte for byte, between boundaries that no part holds."""
    body, content_type = request_body(named(parts))
    kind, _, boundary = content_type.partition("; boundary=")
    assert kind == "multipart/form-data"
    edge = b"--" + boundary.encode()
    assert body.count(edge) == len(parts) + 1
    expected = [
        b'%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (edge, name.encode(), content)
        for name, content in parts.items()
    ]
    assert body == b"".join(expected) + edge + b"--\r\n"


@pytest.mark.parametrize("name", ["", " a", "a ", 'a"b', "a:b", "a;b", "a,b", "a=b", "a\\b", "a\r\nb: c", "a\0", "\t"])
def test_names_that_would_not_arrive(name: str) -> None:
    """A name that TorchServe would change is refused, as the handler would look for the part in vain."""
    with pytest.raises(InvalidRequest, match="the name of a part"):
        request_body(named({name: b"x"}))


def test_several_strings_are_parts() -> None:
    """Several inputs of one BYTES element each become parts, of any shape that has one element."""
    request = InferenceRequest((part("image", b"\xff", ()), part("size", b"8")))
    assert in_parts(request, Wire.AUTO)
    assert parts_of(request) == {"image": b"\xff", "size": b"8"}
    assert request_body(request)[1].startswith("multipart/form-data")


@pytest.mark.parametrize(
    "request_",
    [
        InferenceRequest((part("a", b"x"),)),
        InferenceRequest((part("a", b"x"), tensor("b", "FP32", "<f4", [1]))),
        InferenceRequest((part("a", b"x"), Tensor("b", "BYTES", (2,), pack_bytes([b"y", b"z"])))),
        InferenceRequest((part("a", b"x"), part("b", b"y", (1, 1)))),
        InferenceRequest((part("a", b"x"), part("b", b"y")), form=Form.BODY),
    ],
)
def test_what_is_no_parts(request_: InferenceRequest) -> None:
    """One string is a body, and a mixture with numbers or lists is JSON."""
    assert not in_parts(request_, Wire.AUTO)


@pytest.mark.parametrize("wire", [wire for wire in Wire if wire is not Wire.AUTO])
def test_a_policy_wins(wire: Wire) -> None:
    """A policy that says a form is followed; what came as parts stays parts."""
    parts = {"a": b"x", "b": b"y"}
    assert not in_parts(named(parts, Form.TENSORS), wire)
    assert in_parts(named(parts), wire)
    assert request_body(named(parts), wire)[1].startswith("multipart/form-data")


def test_parts_of_none() -> None:
    """A request without parts has no form, and is refused."""
    with pytest.raises(InvalidRequest, match="no inputs"):
        request_body(named({}))
