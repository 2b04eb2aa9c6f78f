"""Pure: (route, request) → digest. Two requests share a key if and only if the model would be asked the same thing."""

from hashlib import blake2b

from portico.inference import Form, InferenceRequest
from portico.routing import DEFAULT_SIGNATURE, Route, Wire


def cache_key(route: Route, request: InferenceRequest) -> bytes:
    """16 bytes of BLAKE2b over length-prefixed fields: model, resolved version, fingerprint of the loaded files,
    signature, form, task, content type, URL path and wire, requested outputs, and each input's name, datatype, shape
    and bytes, by name.

    Lengths are written before fields, so that no two different requests spell the same bytes. Neither the request's id
    nor the protocol it came by is part of it.
    """
    digest = blake2b(digest_size=16)
    signature = request.signature or DEFAULT_SIGNATURE
    digest.update(_fields([route.model, route.version, route.fingerprint, signature]))
    # What a handler is asked depends on the wire where tensors are to be put into a form for it.
    wire = [route.policy.wire] if request.form is Form.TENSORS and route.policy.wire is not Wire.AUTO else []
    task = "explain" if request.explain else "predict"
    digest.update(_fields([request.form, task, request.content_type, request.url_path, *wire]))
    # A model without signatures answers with all it has; which outputs are wanted is seen to afterwards.
    digest.update(_fields(sorted(request.outputs) if route.signatures else []))
    # A handler sees the order of its inputs; one that takes parts, and a model with signatures, goes by their names.
    by_name = bool(route.signatures) or request.form is Form.PARTS
    for tensor in sorted(request.inputs, key=lambda tensor: tensor.name) if by_name else request.inputs:
        shape = ",".join(map(str, tensor.shape))
        digest.update(_fields([tensor.name, tensor.datatype, shape]))
        digest.update(len(tensor.data).to_bytes(8, "little"))
        digest.update(tensor.data)
    return digest.digest()


def _fields(fields: list[str]) -> bytes:
    """How many fields there are, the length of each, then the fields."""
    encoded = [field.encode() for field in fields]
    sizes = [len(encoded), *map(len, encoded)]
    return b"".join([*(size.to_bytes(4, "little") for size in sizes), *encoded])
