"""What TF Serving tells of its models, said of ours: version status and signatures. Used by its gRPC and REST
protocols, which say the same in two forms.

Source: tensorflow_serving/apis/get_model_status.proto and get_model_metadata.proto.
"""

from collections.abc import Iterable

from portico.codecs.tensorflow import signature_def
from portico.errors import InvalidRequest
from portico.protocols.open_inference import described_signatures
from portico.routing import DEFAULT_SIGNATURE, Route, RouteTable, Signature, State, Version
from portico.validation import signature_of
from portico.wire import tensorflow_error_pb2 as tf_error
from portico.wire import tf_serving_pb2 as tfs

SIGNATURE_DEF = "signature_def"
"""The one metadata field there is."""

LONGEST_NUMBER = 19
"""Digits of 2^63 - 1."""

_STATE = {
    State.LOADING: (tfs.ModelVersionStatus.LOADING, tf_error.OK),
    State.READY: (tfs.ModelVersionStatus.AVAILABLE, tf_error.OK),
    State.UNAVAILABLE: (tfs.ModelVersionStatus.UNKNOWN, tf_error.UNAVAILABLE),
    State.DRAINING: (tfs.ModelVersionStatus.UNLOADING, tf_error.OK),
    State.FAILED: (tfs.ModelVersionStatus.END, tf_error.UNKNOWN),
    State.QUARANTINED: (tfs.ModelVersionStatus.END, tf_error.INVALID_ARGUMENT),
}


def resolve(table: RouteTable, name: str, version: str, label: str) -> Route:
    """The route that a client means. Raises ModelNotFound, VersionNotFound or ModelNotReady."""
    return table.resolve(name, _meant(table, name, version), label)


def _meant(table: RouteTable, name: str, version: str) -> str:
    """The version, empty for the default. OpenVINO Model Server reads 0 so, and its clients send nothing else for it;
    a model that has a version 0 is meant by it.
    """
    return "" if version == "0" and "0" not in table.model(name).versions else version


def status(table: RouteTable, name: str, version: str, label: str) -> tfs.GetModelStatusResponse:
    """The status of one version, or of all, newest first. Raises ModelNotFound or VersionNotFound."""
    model, version = table.model(name), _meant(table, name, version)
    wanted = [model.status(version, label)] if version or label else reversed(list(model.versions.values()))
    return tfs.GetModelStatusResponse(model_version_status=[_status(entry) for entry in wanted])


def signature_named(route: Route, name: str, missing: str) -> Signature | None:
    """The signature that a request means; None where the model has none. Raises InvalidRequest that begins with
    `missing`, TF Serving's words for a {name} that it does not find.
    """
    try:
        return signature_of(route, name)
    except InvalidRequest as error:
        raise InvalidRequest(f"{missing.format(name=name or DEFAULT_SIGNATURE)} {error}") from error


def number(version: str) -> int:
    """A version as TF Serving's messages have it: 64 bits, and 0 for one of TorchServe's that is no such number."""
    value = int(version) if version.isascii() and version.isdecimal() and len(version) <= LONGEST_NUMBER else 0
    return value if value < 1 << 63 else 0


def spec(route: Route, signature: str | None = None) -> tfs.ModelSpec:
    """What was served, as TF Serving says it: the version even where the client gave none, and the default signature's
    name for an empty one. None is for answers of no signature.
    """
    name = "" if signature is None else signature or DEFAULT_SIGNATURE
    message = tfs.ModelSpec(name=route.model, signature_name=name)
    version = number(route.version)
    if version or route.version == "0":
        message.version.value = version
    return message


def _status(version: Version) -> tfs.ModelVersionStatus:
    state, code = _STATE[version.state]
    message = tfs.ModelVersionStatus(version=number(version.version), state=state)
    message.status.error_code = code
    message.status.error_message = version.reason
    return message


def check_metadata_fields(fields: Iterable[str]) -> None:
    """Raises InvalidRequest unless `fields` asks for the signatures and nothing else (get_model_metadata_impl.cc)."""
    asked = list(fields)
    if not asked:
        raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field")
    for field in asked:
        if field != SIGNATURE_DEF:
            raise InvalidRequest(f"Metadata field {field} is not supported")


def signature_def_map(route: Route) -> tfs.SignatureDefMap:
    """All signatures of a model; of one whose server declares none, what its handler takes and gives as it is."""
    signatures = described_signatures(route)
    return tfs.SignatureDefMap(signature_def={name: signature_def(signatures[name]) for name in signatures})
