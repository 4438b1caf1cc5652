"""Run the part of a graph that no edit reaches once for each latent, and keep what it computes.

A sweep, a slider that moves and an exploration render one latent with many edits.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sefa_runtime.model.info import Prefix

if TYPE_CHECKING:
    import onnxruntime

Feeds = Mapping[str, NDArray[Any]]
# What the prefix computes for one image, [1, ...] each.
Tensors = tuple[NDArray[Any], ...]


class PrefixCache:
    """A prefix, and its tensors for the latents used last; may be used from several threads at once.

    Attributes:
        inference: The prefix alone.
    """

    def __init__(
        self,
        inference: "onnxruntime.InferenceSession",
        rest: "onnxruntime.InferenceSession",
        prefix: Prefix,
        run: Callable[["onnxruntime.InferenceSession", Feeds], Sequence[NDArray[Any]]],
        max_bytes: int,
    ) -> None:
        """Keep nothing yet.

        Args:
            inference: The prefix alone; its inputs tell one latent from another.
            rest: The rest of the graph.
            prefix: What the prefix computes.
            run: Runs a session.
            max_bytes: Size of all that is kept.
        """
        self.inference = inference
        self._names = tuple(value.name for value in inference.get_inputs())
        self._rest = tuple(value.name for value in rest.get_inputs())
        self._tensors = tuple(tensor.name for tensor in prefix.tensors)
        self._run = run
        self._most = max_bytes // max(sum(tensor.bytes for tensor in prefix.tensors), 1)  # latents
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Tensors] = OrderedDict()  # most recently used last

    def complete(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Return an array for each input of the rest of the graph; what new latents need is computed.

        Args:
            feeds: An array for each input of the whole graph.
        """
        tensors = self._tensors_of(feeds)
        return {name: tensors[name] if name in tensors else feeds[name] for name in self._rest}

    def latents(self) -> list[bytes]:
        """Return the latents whose tensors are kept, as the bytes of their inputs, most recently used last."""
        with self._lock:
            return list(self._kept)

    def clear(self) -> None:
        """Forget all latents."""
        with self._lock:
            self._kept.clear()

    def _tensors_of(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        given = {name: feeds[name] for name in self._names}
        keys = [b"".join(row.tobytes() for row in rows) for rows in zip(*given.values(), strict=True)]
        found = self._take(keys)
        new = {key: index for index, key in enumerate(keys) if key not in found}
        if new:
            rows = [*new.values()]
            computed = self._run(
                self.inference, {name: np.ascontiguousarray(array[rows]) for name, array in given.items()}
            )
            # Copied, since a slice would keep the tensors of the whole batch in memory.
            found |= {key: tuple(item[row : row + 1].copy() for item in computed) for row, key in enumerate(new)}
            self._keep({key: found[key] for key in new})
        if len(keys) == 1:
            return dict(zip(self._tensors, found[keys[0]], strict=True))
        return {name: np.concatenate([found[key][index] for key in keys]) for index, name in enumerate(self._tensors)}

    def _take(self, keys: Sequence[bytes]) -> dict[bytes, Tensors]:
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
            return found

    def _keep(self, fresh: Mapping[bytes, Tensors]) -> None:
        with self._lock:
            for key, tensors in fresh.items():
                self._kept[key] = tensors
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
