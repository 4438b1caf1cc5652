"""What stands for the names that checkpoints' pickles call: functions of our own, by exact module and name.

Each is called with the limits and then with what the pickle has as arguments, which may be anything.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sefa.checkpoints.unpickling.objects import PersistedModule, TensorFlowNetwork
from sefa.errors import CheckpointError
from sefa_runtime.pickles.arrays import StoredArray, is_shape
from sefa_runtime.pickles.interpreter import Table
from sefa_runtime.pickles.limits import Limits
from sefa_runtime.pickles.names import Name
from sefa_runtime.pickles.placeholders import Placeholder
from sefa_runtime.pickles.tables import PLAIN_TABLE, make_dict, make_method, make_object

# Names of torch's storages in pickles, and what they hold; of quantised numbers, the integers.
STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
TENSOR_COST = 20  # Steps of work: a tensor takes memory of its own.
STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors are views of, shape [numel]."""

    numbers: Tensor


def storage_dtype(kind: object) -> torch.dtype:
    """What a storage holds whose type a pickle names as `torch.FloatStorage`.

    Raises:
        CheckpointError: If it is no storage's name.
    """
    if not isinstance(kind, Name) or kind.module not in STORAGE_MODULES or kind.name not in STORAGES:
        raise CheckpointError("damaged: weights of no known type")
    return STORAGES[kind.name]


def _rebuild_tensor(
    limits: Limits,
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
    *rest: object,
) -> Tensor | Placeholder:
    return _negated() if metadata else _view(limits, storage, offset, size, stride)


def _negated() -> Placeholder:
    # Tensors that are to be read with another sign than stands in their storage.
    return Placeholder("torch._utils._rebuild_tensor_v2, lazily negated or conjugated")


def _rebuild_tensor_v3(
    limits: Limits,
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
    *rest: object,
) -> Tensor | Placeholder:
    if metadata:
        return _negated()
    # Of the types that came without a storage of their own: float8, unsigned integers.
    kind = getattr(torch, dtype.name, None) if isinstance(dtype, Name) and dtype.module == "torch" else None
    if not isinstance(kind, torch.dtype) or not isinstance(storage, Storage):
        raise CheckpointError("damaged: a tensor of no known type")
    return _view(limits, Storage(storage.numbers.view(kind)), offset, size, stride)


def _view(limits: Limits, storage: object, offset: object, size: object, stride: object) -> Tensor:
    if not isinstance(storage, Storage) or type(offset) is not int or not is_shape(size) or not is_shape(stride):
        raise CheckpointError("damaged: a tensor without its storage")
    numel = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if offset < 0 or (numel and last >= len(storage.numbers)):
        raise CheckpointError("damaged: a tensor that reaches beyond its storage")
    limits.spend_work(TENSOR_COST)
    limits.spend_elements(numel)
    # as_strided counts from the beginning of what it is a view of.
    return torch.as_strided(storage.numbers, size, stride, storage.numbers.storage_offset() + (offset if numel else 0))


def _rebuild_parameter(limits: Limits, tensor: object, *rest: object) -> object:
    return tensor


def _rebuild_from_type(limits: Limits, function: object, kind: object, arguments: object, *rest: object) -> object:
    # Of tensors that carry attributes, and of subclasses.
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise CheckpointError("damaged: a tensor without its storage")
    rebuild = TABLE.get((function.module, function.name))
    if rebuild in (_rebuild_tensor, _rebuild_tensor_v3, _rebuild_parameter):
        return rebuild(limits, *arguments)
    return Placeholder(f"torch._tensor._rebuild_from_type_v2 of {function}")


def _rebuild_from_array(limits: Limits, array: object, *rest: object) -> Tensor:
    # Of tensors that were on a TPU.
    numbers = array.array if isinstance(array, StoredArray) else None
    if numbers is None:
        raise CheckpointError("damaged: a tensor without its numbers")
    limits.spend_elements(numbers.size)
    return torch.from_numpy(np.array(numbers, dtype=numbers.dtype.newbyteorder("=")))


def _persisted(limits: Limits, meta: object, *rest: object) -> PersistedModule:
    # Its source text is an entry beside these, and stays text.
    class_name, state = (meta.get("class_name"), meta.get("state")) if isinstance(meta, dict) else (None, None)
    if not isinstance(class_name, str) or not isinstance(state, dict):
        raise CheckpointError("damaged: a network without its class or state")
    containers = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    limits.spend_work(len(state) + sum(len(container) for container in containers if isinstance(container, dict)))
    return PersistedModule(class_name, state)


def _new_object(limits: Limits, kind: object, *arguments: object) -> object:
    if isinstance(kind, Name) and TABLE.get((kind.module, kind.name)) is _network:
        return _network(limits)
    if isinstance(kind, Name) and TABLE.get((kind.module, kind.name)) is make_dict:
        return {}
    return make_object(limits, kind)


def _method(limits: Limits, owner: object, name: object, *rest: object) -> Placeholder:
    return make_method(limits, Placeholder(owner.class_name) if isinstance(owner, PersistedModule) else owner, name)


def _network(limits: Limits, *rest: object) -> TensorFlowNetwork:
    return TensorFlowNetwork()  # A state follows.


TABLE: Table = {
    **PLAIN_TABLE,
    ("builtins", "getattr"): _method,
    ("copyreg", "_reconstructor"): _new_object,
    ("copyreg", "__newobj__"): _new_object,
    ("dnnlib.util", "EasyDict"): make_dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persisted,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _rebuild_from_array,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("tfutil", "Network"): _network,
    ("dnnlib.tflib.network", "Network"): _network,
}
