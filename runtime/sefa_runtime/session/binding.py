"""Run a session with input and output buffers that stay on its device.

Only the inputs go to the device and only the image comes back. The buffers for a shape are made once and reused. On the
CPU they are ordinary memory, so the same code runs everywhere.
"""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.session.importing import import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

# Sets of buffers kept for later runs, over all shapes; concurrent runs may use more, one set for each thread.
MAX_IDLE = 8
# Number of shapes that get a CUDA graph, which keeps its memory for good; further shapes run without.
MAX_GRAPHS = 16
GRAPH_ID = "gpu_graph_id"
NO_GRAPH = -1

Feeds = Mapping[str, NDArray[Any]]
Shapes = tuple[tuple[int, ...], ...]


class BoundRuns:
    """Runs of one session through IO binding; may be used from several threads at once.

    Each run has a set of buffers to itself. With CUDA graphs each shape has one set, whose addresses are in the graph,
    and runs take turns.
    """

    def __init__(
        self, inference: "onnxruntime.InferenceSession", device: str = "cpu", device_id: int = 0, graphs: bool = False
    ) -> None:
        """Bind nothing yet: the first run with a shape makes its buffers.

        Args:
            inference: The session; its output must have a static shape after the batch (see `can_bind`).
            device: Where the buffers are: `cpu` or `cuda`.
            device_id: Index of the device.
            graphs: Capture a CUDA graph at a shape's first run and replay it from then on; the session must have been
                built with `enable_cuda_graph`.
        """
        self._inference = inference
        self._device = (device, device_id)
        self._lock = threading.Lock()
        self._idle: list[_Buffers] = []  # most recently used last
        self._graphs: dict[Shapes, _Buffers] | None = {} if graphs else None

    def run(self, feeds: Feeds, options: "onnxruntime.RunOptions | None" = None) -> NDArray[Any]:
        """Run the graph; the returned image is the caller's own, not a buffer.

        Args:
            feeds: An array for each input.
            options: Lets another thread stop the run; not with CUDA graphs.
        """
        shapes = tuple(array.shape for array in feeds.values())
        if self._graphs is not None:
            with self._lock:
                return self._run_captured(shapes, feeds)
        buffers = self._take(shapes) or self._make(feeds)
        try:
            return buffers.run(feeds, options)
        finally:
            with self._lock:
                self._idle.append(buffers)
                del self._idle[:-MAX_IDLE]

    def _run_captured(self, shapes: Shapes, feeds: Feeds) -> NDArray[Any]:
        assert self._graphs is not None
        if shapes not in self._graphs and len(self._graphs) < MAX_GRAPHS:
            self._graphs[shapes] = self._make(feeds, graph=len(self._graphs) + 1)
        buffers = self._graphs.get(shapes) or self._make(feeds, graph=NO_GRAPH)
        return buffers.run(feeds)

    def _take(self, shapes: Shapes) -> "_Buffers | None":
        with self._lock:
            for index in reversed(range(len(self._idle))):
                if self._idle[index].shapes == shapes:
                    return self._idle.pop(index)
        return None

    def _make(self, feeds: Feeds, graph: int | None = None) -> "_Buffers":
        return _Buffers(self._inference, feeds, self._device, graph)


class _Buffers:
    """Inputs and output of one shape, bound to the session."""

    def __init__(
        self, inference: "onnxruntime.InferenceSession", feeds: Feeds, device: tuple[str, int], graph: int | None
    ) -> None:
        onnxruntime = import_onnxruntime()
        self.shapes = tuple(array.shape for array in feeds.values())
        self._inference = inference
        self._binding = inference.io_binding()
        self._inputs = {}
        for name, array in feeds.items():
            value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, *device)
            self._binding.bind_ortvalue_input(name, value)
            self._inputs[name] = value
        (output,) = inference.get_outputs()
        shape = (self.shapes[0][0], *output.shape[1:])
        self._output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, _dtype(output.type), *device)
        self._binding.bind_ortvalue_output(output.name, self._output)
        self._options = None
        if graph is not None:
            self._options = onnxruntime.RunOptions()
            self._options.add_run_config_entry(GRAPH_ID, str(graph))

    def run(self, feeds: Feeds, options: "onnxruntime.RunOptions | None" = None) -> NDArray[Any]:
        for name, value in self._inputs.items():
            value.update_inplace(feeds[name])
        self._inference.run_with_iobinding(self._binding, self._options or options)
        return np.array(self._output.numpy())  # On the CPU `numpy()` is the buffer itself.


def can_bind(inference: "onnxruntime.InferenceSession") -> bool:
    """Return whether the output's size is known before a run: one output, with a static shape after the batch."""
    outputs = inference.get_outputs()
    return len(outputs) == 1 and all(isinstance(size, int) for size in outputs[0].shape[1:])


def _dtype(onnx_type: str) -> type[np.generic]:
    """Return numpy's type for `tensor(uint8)` or `tensor(float)`, the two output types of exported graphs."""
    return np.uint8 if onnx_type == "tensor(uint8)" else np.float32
