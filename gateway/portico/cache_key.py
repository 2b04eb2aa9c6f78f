"""Pure: (route, request) → key in the cache. Two requests share a key if and only if the model would be asked the same
thing, on behalf of the same tenant.
"""

from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3

from portico.inference import Form, InferenceRequest
from portico.routing import DEFAULT_SIGNATURE, Route, Wire

DIGEST_BYTES = 16
MOST_COPIED = 4096
"""Bytes of a field that are put together with others for the digest, since a call of it costs as much as copying them.
"""


class CacheKey(NamedTuple):
    """`model` is there for who looks after the cache; the digest alone tells keys apart."""

    model: str
    digest: bytes


def cache_key(route: Route, request: InferenceRequest, varied: tuple[str, ...] = ()) -> CacheKey:
    """BLAKE3 over the fields of `canonical`, each with its length before it, so that no two different requests spell
    the same bytes. `varied` are the values of the headers that the model's policy names, in its order.
    """
    digest, small = blake3(), []
    for field in canonical(route, request, varied):
        small.append(len(field).to_bytes(8, "little"))
        if len(field) <= MOST_COPIED:
            small.append(field)
        else:
            digest.update(b"".join(small))
            digest.update(field)
            small.clear()
    digest.update(b"".join(small))
    return CacheKey(route.model, digest.digest(length=DIGEST_BYTES))


def canonical(route: Route, request: InferenceRequest, varied: tuple[str, ...] = ()) -> Iterator[bytes]:
    """All that an answer depends on: model, resolved version, fingerprint of the loaded files, signature, form, task,
    content type, URL path, wire, headers that count, requested outputs, and each input's name, datatype, shape and
    bytes. Neither the request's id nor the protocol or the encoding it came by is part of it.
    """
    # What a handler is asked depends on the wire where tensors are to be put into a form for it.
    wire = route.policy.wire if request.form is Form.TENSORS and route.policy.wire is not Wire.AUTO else ""
    outputs = _outputs(route, request)
    signature = request.signature or DEFAULT_SIGNATURE
    head = (
        route.model,
        route.version,
        route.fingerprint,
        signature,
        request.form,
        "explain" if request.explain else "",
    )
    texts = (
        *head,
        request.content_type,
        request.url_path,
        wire,
        str(len(varied)),
        *(route.policy.cache_vary if varied else ()),
        *varied,
        str(len(outputs)),
        *outputs,
    )
    yield from map(str.encode, texts)
    # A handler sees the order of its inputs; one that takes parts, and a model with signatures, goes by their names.
    by_name = bool(route.signatures) or request.form is Form.PARTS
    for tensor in sorted(request.inputs, key=lambda tensor: tensor.name) if by_name else request.inputs:
        yield tensor.name.encode()
        yield tensor.datatype.encode()
        yield ",".join(map(str, tensor.shape)).encode()
        yield tensor.data


def _outputs(route: Route, request: InferenceRequest) -> list[str]:
    """The outputs that the model is asked for, empty for all that there are.

    A model without signatures answers with all it has; which are wanted is seen to afterwards.
    """
    signature = route.signatures.get(request.signature or DEFAULT_SIGNATURE)
    if signature is None:
        return sorted(set(request.outputs)) if route.signatures else []
    wanted = set(request.outputs)
    return [] if wanted.issuperset(output.name for output in signature.outputs) else sorted(wanted)
