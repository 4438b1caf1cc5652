"""The services that the gRPC port offers, with their messages, from the `.proto` files beside this module.

`messages.binpb` is what protoc compiles them to (`make proto`). The classes are created here, in a pool of their own,
so that they work with any protobuf from 4.25 on, and beside a client in the same process that has registered the same
names (tritonclient, kserve).
"""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).with_name("messages.binpb")


def load_services() -> dict[str, Any]:
    """Return the descriptors of the services, by their full names."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    for file in files:
        pool.Add(file)
    return {
        service.full_name: service
        for file in files
        for service in pool.FindFileByName(file.name).services_by_name.values()
    }


def message_class(descriptor: Any) -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(descriptor)
