"""Parameters of the Open Inference Protocol: what they may be at each of its levels, in JSON and in messages alike.
Used by both of its codecs.

Source: the protocol's "Parameters", and Triton's extensions for binary data, sequences, classification and shared
memory. A parameter that nobody defines is taken and means nothing.
"""

from collections.abc import Mapping
from typing import Any

from portico.errors import InvalidRequest

SIGNATURE = "signature_name"
"""Of a request: the signature of a TensorFlow model, empty for the default one. Other models have none to name."""
CONTENT_TYPE = "content_type"
"""Of a request: what a TorchServe handler is told the body to be."""
BINARY_OUTPUT = "binary_data_output"
BINARY = "binary_data"
BINARY_SIZE = "binary_data_size"

Parameters = Mapping[str, Any]

_KINDS: Mapping[str, tuple[type, str]] = {
    SIGNATURE: (str, "a string"),
    CONTENT_TYPE: (str, "a string"),
    BINARY_OUTPUT: (bool, "true or false"),
    BINARY: (bool, "true or false"),
    BINARY_SIZE: (int, "a number of bytes"),
    "sequence_start": (bool, "true or false"),
    "sequence_end": (bool, "true or false"),
    "classification": (int, "a number"),
}
"""Parameters with a meaning → the type of their values, and what it is called."""


def of_json(entry: Mapping[str, Any], where: str) -> Parameters:
    """The parameters of a JSON object, without those that are null. `where` names the object in errors.

    Raises InvalidRequest for what is neither a string, nor a number, nor a boolean.
    """
    values = entry.get("parameters")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidRequest(f"{where}'parameters' has to be an object.")
    for name, value in values.items():
        if not isinstance(value, str | int | float | None):
            raise InvalidRequest(f"{where}parameter '{name}' has to be a string, a number or a boolean.")
    return checked({name: value for name, value in values.items() if value is not None}, where)


def checked(parameters: Parameters, where: str) -> Parameters:
    """Parameters whose values are of the types that they are to be. Raises InvalidRequest."""
    for name in parameters.keys() & _KINDS.keys():
        kind, called = _KINDS[name]
        if type(parameters[name]) is not kind:
            raise InvalidRequest(f"{where}'{name}' has to be {called}.")
    if parameters.get(BINARY_SIZE, 0) < 0:
        raise InvalidRequest(f"{where}'{BINARY_SIZE}' is below 0.")
    return parameters


def refuse_sequences(parameters: Parameters) -> None:
    """Raises InvalidRequest for a request that is part of a sequence; an id of 0 or "" says that it is not."""
    sequence = parameters.get("sequence_id", 0)
    if type(sequence) not in (int, str):
        raise InvalidRequest("'sequence_id' has to be a number or a string.")
    if sequence or parameters.get("sequence_start") or parameters.get("sequence_end"):
        raise InvalidRequest(
            "Portico keeps no sequences: send requests without sequence_id, sequence_start and sequence_end."
        )


def refuse_shared_memory(parameters: Parameters, where: str) -> None:
    """Raises InvalidRequest for a tensor that lies in, or is to go to, memory that client and server share."""
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"{where}Portico has no shared memory with its clients: send the data in the request.")


def refuse_classification(parameters: Parameters, where: str) -> None:
    """Raises InvalidRequest for an output that is asked for as its top classes."""
    if parameters.get("classification"):
        raise InvalidRequest(f"{where}'classification' is not supported: ask for the output as it is.")
