"""The messages of `inference.GRPCInferenceService` and `grpc.health.v1.Health` that we read and write.

Names, types and numbers of the fields are the protocols'; what we never look at is left out, and skipped when it comes.
The classes are made here, in a pool of their own, and not by protoc: this runs with any protobuf from 4.25 on, and
beside a client in the same process that has registered the same names (tritonclient, kserve).
Sources: KServe's open inference protocol, Triton's grpc_service.proto and model_config.proto, grpc's health.proto.
"""

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INFERENCE = """
message ServerLiveRequest
message ServerLiveResponse
    bool live = 1
message ServerReadyRequest
message ServerReadyResponse
    bool ready = 1
message ModelReadyRequest
    string name = 1
    string version = 2
message ModelReadyResponse
    bool ready = 1
message ServerMetadataRequest
message ServerMetadataResponse
    string name = 1
    string version = 2
    repeated string extensions = 3

message ModelMetadataRequest
    string name = 1
    string version = 2
message ModelMetadataResponse
    string name = 1
    repeated string versions = 2
    string platform = 3
    repeated TensorMetadata inputs = 4
    repeated TensorMetadata outputs = 5
message TensorMetadata
    string name = 1
    string datatype = 2
    repeated int64 shape = 3

message ModelInferRequest
    string model_name = 1
    string model_version = 2
    string id = 3
    repeated InferInputTensor inputs = 5
    repeated InferRequestedOutputTensor outputs = 6
    repeated bytes raw_input_contents = 7
message InferInputTensor
    string name = 1
    string datatype = 2
    repeated int64 shape = 3
    map InferParameter parameters = 4
    InferTensorContents contents = 5
message InferRequestedOutputTensor
    string name = 1
    map InferParameter parameters = 2
message InferParameter
    int64 int64_param = 2
    string string_param = 3
message InferTensorContents
    repeated int64 int64_contents = 3
    repeated float fp32_contents = 6
message ModelInferResponse
    string model_name = 1
    string model_version = 2
    string id = 3
    repeated InferOutputTensor outputs = 5
    repeated bytes raw_output_contents = 6
message InferOutputTensor
    string name = 1
    string datatype = 2
    repeated int64 shape = 3

message ModelConfigRequest
    string name = 1
    string version = 2
message ModelConfigResponse
    ModelConfig config = 1
message ModelConfig
    string name = 1
    string platform = 2
    int32 max_batch_size = 4
    repeated ModelInput input = 5
    repeated ModelOutput output = 6
    repeated ModelInstanceGroup instance_group = 7
    ModelDynamicBatching dynamic_batching = 11
    string backend = 17
message ModelInput
    string name = 1
    DataType data_type = 2
    repeated int64 dims = 4
message ModelOutput
    string name = 1
    DataType data_type = 2
    repeated int64 dims = 3
message ModelInstanceGroup
    int32 count = 2
    InstanceKind kind = 4
enum InstanceKind
    KIND_AUTO = 0
    KIND_GPU = 1
    KIND_CPU = 2
message ModelDynamicBatching
    uint64 max_queue_delay_microseconds = 2
enum DataType
    TYPE_INVALID = 0
    TYPE_UINT8 = 2
    TYPE_INT64 = 9
    TYPE_FP32 = 11

message ModelStatisticsRequest
    string name = 1
    string version = 2
message ModelStatisticsResponse
    repeated ModelStatistics model_stats = 1
message ModelStatistics
    string name = 1
    string version = 2
    uint64 last_inference = 3
    uint64 inference_count = 4
    uint64 execution_count = 5
    InferStatistics inference_stats = 6
    repeated InferBatchStatistics batch_stats = 7
message InferStatistics
    StatisticDuration success = 1
    StatisticDuration fail = 2
    StatisticDuration queue = 3
    StatisticDuration compute_input = 4
    StatisticDuration compute_infer = 5
    StatisticDuration compute_output = 6
message InferBatchStatistics
    uint64 batch_size = 1
    StatisticDuration compute_input = 2
    StatisticDuration compute_infer = 3
    StatisticDuration compute_output = 4
message StatisticDuration
    uint64 count = 1
    uint64 ns = 2
"""
HEALTH = """
message HealthCheckRequest
    string service = 1
message HealthCheckResponse
    ServingStatus status = 1
enum ServingStatus
    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
"""
HEADING = re.compile(r"(message|enum) (\w+)")
FIELD = re.compile(r"(?:(repeated|map) )?(\w+) (\w+) = (\d+)")
VALUE = re.compile(r"(\w+) = (\d+)")


class Messages:
    """The message classes of one package, by name."""

    def __init__(self, package: str, text: str) -> None:
        """Make them.

        Args:
            package: Its name.
            text: As above: messages with their fields, enums with their values. A map's keys are strings.
        """
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        for line in filter(None, map(str.strip, text.splitlines())):
            if heading := HEADING.fullmatch(line):
                kind, name = heading.groups()
                (file.message_type if kind == "message" else file.enum_type).add(name=name)
                in_enum = kind == "enum"
            elif in_enum:
                name, number = VALUE.fullmatch(line).groups()  # type: ignore[union-attr]
                file.enum_type[-1].value.add(name=name, number=int(number))
            else:
                label, kind, name, number = FIELD.fullmatch(line).groups()  # type: ignore[union-attr]
                _add_field(package, file.message_type[-1], label, kind, name, int(number))
        enums = {f".{package}.{enum.name}" for enum in file.enum_type}
        for field in (field for message in file.message_type for field in message.field):
            if field.type_name in enums:
                field.type = field.TYPE_ENUM
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._classes = {
            message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message.name}"))
            for message in file.message_type
        }

    def __getitem__(self, name: str) -> Any:
        """The class of a message."""
        return self._classes[name]


def _add_field(package: str, message: Any, label: str | None, kind: str, name: str, number: int) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if label else field.LABEL_OPTIONAL
    if label == "map":  # On the wire, a list of messages of key and value.
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(package, entry, None, "string", "key", 1)
        _add_field(package, entry, None, kind, "value", 2)
        field.type_name = f".{package}.{message.name}.{entry.name}"
        field.type = field.TYPE_MESSAGE
    elif kind[0].isupper():
        field.type_name = f".{package}.{kind}"
        field.type = field.TYPE_MESSAGE
    else:
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")
