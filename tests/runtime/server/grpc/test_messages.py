"""The checked-in descriptor set against the `.proto` files that it is made of."""

import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from sefa_runtime.server.grpc import messages

FOLDER = Path(messages.__file__).parent
PROTOS = sorted(FOLDER.glob("*.proto"))
REMAKE = "run `make proto`"


def compiled() -> dict[str, Any]:
    """The files of the descriptor set, by name."""
    return {
        file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(messages.DESCRIPTORS.read_bytes()).file
    }


def test_every_file_is_in_the_set() -> None:
    assert list(compiled()) == [path.name for path in reversed(PROTOS)], REMAKE


@pytest.mark.parametrize("path", PROTOS, ids=lambda path: path.stem)
def test_the_set_says_what_the_file_says(path: Path) -> None:
    file = compiled()[path.name]
    found: list[tuple[str, str, str, int]] = []  # of each message's fields and enum's values: where, type, name, number

    def add_enums(enums: Any) -> None:
        for enum in enums:
            found.extend((enum.name, "", value.name, value.number) for value in enum.value)

    def type_of(message: Any, field: Any) -> str:
        entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
        named: str = field.type_name.rpartition(".")[2]
        if named in entries:
            _, value = entries[named].field
            return f"map<string, {value.type_name.rpartition('.')[2]}>"
        scalar: str = descriptor_pb2.FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        repeated = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        return ("repeated " if repeated else "") + (named or scalar)

    for message in file.message_type:
        add_enums(message.enum_type)
        found.extend((message.name, type_of(message, field), field.name, field.number) for field in message.field)
    add_enums(file.enum_type)
    calls = {
        (method.name, method.input_type.rpartition(".")[2], method.output_type.rpartition(".")[2])
        for service in file.service
        for method in service.method
    }

    written: list[tuple[str, str, str, int]] = []
    where: list[str] = []
    text = re.sub(r"//.*", "", path.read_text())
    for statement in re.findall(r"[^;{}]+[;{]|}", text):
        statement = statement.strip()
        if heading := re.fullmatch(r"(?:message|enum|service) (\w+) \{", statement):
            where.append(heading[1])
        elif statement == "}":
            where.pop()
        elif field := re.fullmatch(r"(.*?) ?(\w+) = (\d+);", statement):
            written.append((where[-1], field[1], field[2], int(field[3])))
    assert sorted(written) == sorted(found), REMAKE
    assert set(re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\)", text)) == calls, REMAKE
    (package,) = re.findall(r"^package ([\w.]+);", text, re.MULTILINE)
    assert (file.package, file.syntax) == (package, "proto3")


def test_protoc_makes_the_same_set(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    made = tmp_path / "messages.binpb"
    names = [path.name for path in reversed(PROTOS)]
    assert protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}", *names]) == 0
    assert descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()) == descriptor_pb2.FileDescriptorSet(
        file=list(compiled().values())
    ), REMAKE
