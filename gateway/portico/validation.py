"""Pure: does a request fit the signature a model declares? Called by `dispatch` before a model server is bothered, so
that the client reads which input is wrong, what was given, and what the model takes.
"""

from collections import Counter

from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor, check_count
from portico.routing import DEFAULT_SIGNATURE, Route, Server, Signature, TensorSpec


def signature_of(route: Route, name: str) -> Signature | None:
    """The signature a request means; None where the model server declares none (TorchServe).

    Raises InvalidRequest for a name the model does not have.
    """
    if not route.signatures:
        if name not in ("", DEFAULT_SIGNATURE):
            raise InvalidRequest(
                f"Model '{route.model}' has no signature '{name}': {route.server.display_name} declares none for it. "
                "Leave the name out."
            )
        return None
    signature = route.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        # TensorFlow's own, such as __saved_model_init_op, are not for clients.
        known = ", ".join(f"'{known}'" for known in sorted(route.signatures) if not known.startswith("__"))
        raise InvalidRequest(
            f"Model '{route.model}' has no signature '{name or DEFAULT_SIGNATURE}'. Its signatures: {known}."
        )
    return signature


def check_explains(route: Route) -> None:
    """Raises InvalidRequest where the model server gives no explanations."""
    if route.server is not Server.TORCHSERVE:
        raise InvalidRequest(f"Model '{route.model}' has no explanations: {route.server.display_name} gives none.")


def validate(route: Route, request: InferenceRequest) -> None:
    """Raises InvalidRequest if `request` does not fit. A model that declares no signature takes any inputs once."""
    check_count(len(request.outputs), "outputs")
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise InvalidRequest(f"Model '{route.model}' was given input '{twice}' twice.")
    signature = signature_of(route, request.signature)
    if signature is None:
        return
    specs = {spec.name: spec for spec in signature.inputs}
    for tensor in request.inputs:
        spec = specs.pop(tensor.name, None)
        if spec is None:
            raise InvalidRequest(f"Model '{route.model}' {_no_input(tensor.name, signature)}")
        if not _fits(tensor, spec):
            raise InvalidRequest(
                f"Input '{tensor.name}' of model '{route.model}': given {_shown(tensor.datatype, tensor.shape)}, "
                f"the model takes {_shown(spec.datatype, spec.shape)}."
            )
    if specs:
        missing = ", ".join(f"'{spec.name}' ({_shown(spec.datatype, spec.shape)})" for spec in specs.values())
        raise InvalidRequest(f"Model '{route.model}' also takes input {missing}, which the request does not have.")
    if request.outputs:
        outputs = {spec.name for spec in signature.outputs}
        for name in request.outputs:
            if name not in outputs:
                raise InvalidRequest(
                    f"Model '{route.model}' has no output '{name}'. Its outputs: {', '.join(sorted(outputs))}."
                )


def _no_input(name: str, signature: Signature) -> str:
    takes = ", ".join(f"'{spec.name}' ({_shown(spec.datatype, spec.shape)})" for spec in signature.inputs) or "none"
    return f"has no input '{name}'. Its inputs: {takes}."


def _fits(tensor: Tensor, spec: TensorSpec) -> bool:
    if tensor.datatype != spec.datatype:
        return False
    if spec.shape is None:
        return True
    if len(tensor.shape) != len(spec.shape):
        return False
    return all(want in (-1, got) for got, want in zip(tensor.shape, spec.shape, strict=True))


def _shown(datatype: str, shape: tuple[int, ...] | None) -> str:
    return f"{datatype} {'of any shape' if shape is None else list(shape)}"
