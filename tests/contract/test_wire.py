"""Our definitions in protos/ against what upstream publishes. Compares descriptors only; knows no server."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import published_descriptors as published
import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

PROTOS = published.ROOT / "protos"
FILES = sorted(file.relative_to(PROTOS).as_posix() for file in PROTOS.rglob("*.proto"))
PUBLISHED_IN = {
    "portico/wire/health.proto": "health",
    "portico/wire/open_inference.proto": "open_inference",
    "portico/wire/tensorflow.proto": "tf_serving",
    "portico/wire/tensorflow_error.proto": "tf_serving",
    "portico/wire/tf_serving.proto": "tf_serving",
    "portico/wire/torchserve.proto": "torchserve",
    "portico/wire/torchserve_management.proto": "torchserve",
}
# File, what stands in it, what stands there instead, and the difference from the file as it was.
CHANGES = [
    ("tensorflow", "DataType dtype = 1;", "DataType dtype = 99;", "TensorProto.dtype: number is 99, upstream has 1"),
    ("tensorflow", "int32 version", "sint32 version", "version_number: type is TYPE_SINT32, upstream has TYPE_INT32"),
    (
        "tensorflow",
        "repeated Dim dim",
        "repeated Example dim",
        "TensorShapeProto.dim: message or enum is tensorflow.Example",
    ),
    ("tensorflow", "bytes float8", "repeated bytes float8", "float8_val: label is repeated, upstream has singular"),
    ("tensorflow", "float_val = 5", "float_val = 5 [packed = false]", "float_val: packed is False, upstream has True"),
    ("tensorflow", "oneof kind", "oneof sort", "tensorflow.Feature.bytes_list: oneof is sort, upstream has kind"),
    ("tensorflow", "bool unknown_rank", "bool no_rank", "field tensorflow.TensorShapeProto.no_rank: upstream has none"),
    ("tensorflow", "DT_BOOL = 10", "DT_BOOL = 40", "value tensorflow.DataType.DT_BOOL: number is 40, upstream has 10"),
    ("tf_serving", '[json_name = "error_code"]', "", "json_name is errorCode, upstream has error_code"),
    ("torchserve", "optional string seq", "string seq", "sequence_id: presence is False, upstream has True"),
    ("health", "service Health", "message Own {} service Health", "message grpc.health.v1.Own: upstream has none"),
    ("health", "service Health", "service Well", "method grpc.health.v1.Well.Check: upstream has none"),
    ("health", "returns (stream ", "returns (", "Health.Watch: streams responses is False, upstream has True"),
    (
        "health",
        "Check(HealthCheckRequest",
        "Check(HealthCheckResponse",
        "Health.Check: input is grpc.health.v1.HealthCheckR",
    ),
]

# What is declared ("field tensorflow.TensorProto.dtype"), and everything about it that a peer can notice.
Declaration: TypeAlias = tuple[str, dict[str, object]]
Contract: TypeAlias = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Contract]:
    """Upstream's contract, by the name of its source in published_descriptors; each is read once, when asked for."""
    read: dict[str, Contract] = {}
    sources: dict[str, Callable[[], list[FileDescriptorProto]]] = {
        "health": published.health,
        "open_inference": published.open_inference,
        "tf_serving": published.tf_serving,
        "torchserve": lambda: published.torchserve(tmp_path_factory.mktemp("jar")),
    }

    def contract_of(source: str) -> Contract:
        if source not in read:
            files = sources[source]()
            read[source] = contract(files, [file.name for file in files])
        return read[source]

    return contract_of


@pytest.mark.parametrize("file", FILES)
def test_declared_wire_is_the_published_one(file: str, upstream: Callable[[str], Contract]) -> None:
    """Every message, field, enum value and method that we declare is upstream's, to the number and the type."""
    declared = contract(published.compiled(PROTOS, [file]), [file])
    assert declared, f"{file} declares nothing"
    found = differences(declared, upstream(PUBLISHED_IN[file]))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "before", "after", "difference"), CHANGES, ids=[change[3] for change in CHANGES])
def test_comparison_names_what_differs(name: str, before: str, after: str, difference: str, tmp_path: Path) -> None:
    """A changed number, type, label, packing, oneof, name, enum value or method is noticed, and named."""
    file = f"portico/wire/{name}.proto"
    copy = shutil.copytree(PROTOS, tmp_path / "protos")
    text = (PROTOS / file).read_text()
    assert before in text
    (copy / file).write_text(text.replace(before, after, 1))
    found = differences(
        contract(published.compiled(copy, [file]), [file]), contract(published.compiled(PROTOS, [file]), [file])
    )
    assert any(difference in text for text in found), found


def differences(ours: Contract, theirs: Contract) -> list[str]:
    """One text for each thing in `ours` that `theirs` lacks or describes otherwise; what only `theirs` has is fine."""
    missing = [f"{name}: upstream has none" for name in ours if name not in theirs]
    other = [
        f"{name}: {what} is {value}, upstream has {theirs[name][what]}"
        for name, facts in ours.items()
        if name in theirs
        for what, value in facts.items()
        if theirs[name][what] != value
    ]
    return missing + other


def contract(files: Iterable[FileDescriptorProto], names: Iterable[str]) -> Contract:
    """Everything that the files `names` declare; `files` holds them and their imports, imports first."""
    pool = DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    declared: Contract = {}
    for name in names:
        descriptor = pool.FindFileByName(name)
        for message in descriptor.message_types_by_name.values():
            declared.update(message_declarations(message))
        for enum in descriptor.enum_types_by_name.values():
            declared.update(enum_declarations(enum))
        for service in descriptor.services_by_name.values():
            declared.update(service_declarations(service))
    return declared


def message_declarations(message: Descriptor) -> Iterator[Declaration]:
    yield f"message {message.full_name}", {"is a map's entry": message.GetOptions().map_entry}
    for field in message.fields:
        yield f"field {field.full_name}", field_facts(field)
    for enum in message.enum_types:
        yield from enum_declarations(enum)
    for nested in message.nested_types:
        yield from message_declarations(nested)


def field_facts(field: FieldDescriptor) -> dict[str, object]:
    refers_to = field.message_type or field.enum_type
    return {
        "number": field.number,
        "type": FieldDescriptorProto.Type.Name(FieldDescriptorProto.Type.ValueType(field.type)),
        "message or enum": refers_to.full_name if refers_to else None,
        "label": "repeated" if field.is_repeated else "required" if field.is_required else "singular",
        "json_name": field.json_name,
        "oneof": field.containing_oneof.name if field.containing_oneof else None,
        "packed": field.is_packed,
        "presence": field.has_presence,
    }


def enum_declarations(enum: EnumDescriptor) -> Iterator[Declaration]:
    yield f"enum {enum.full_name}", {"closed": enum.is_closed}
    for value in enum.values:
        yield f"value {enum.full_name}.{value.name}", {"number": value.number}


def service_declarations(service: ServiceDescriptor) -> Iterator[Declaration]:
    for method in service.methods:
        facts: dict[str, object] = {
            "input": method.input_type.full_name,
            "output": method.output_type.full_name,
            "streams requests": method.client_streaming,
            "streams responses": method.server_streaming,
        }
        yield f"method {method.full_name}", facts
