"""Find the execution provider that each node of a graph was assigned to.

A session on a GPU may silently leave nodes to the CPU, where a single convolution costs more than all the rest.
Source: `InferenceSession.get_provider_graph_assignment_info` (onnxruntime 1.24), which also looks inside the subgraphs
that a compiling provider such as TensorRT or OpenVINO has taken as a whole.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sefa_runtime.errors import ProviderError
from sefa_runtime.session.providers import short_name

if TYPE_CHECKING:
    import onnxruntime

# Session entry without which onnxruntime does not record the assignment.
RECORD_PLACEMENT = ("session.record_ep_graph_assignment_info", "1")


@dataclass(frozen=True)
class Placement:
    """How many nodes each provider runs, by its short name: `{"cuda": 41, "cpu": 6}`.

    Nodes are counted as assigned; a provider may fuse its own afterwards.
    """

    nodes: dict[str, int]
    convolutions: dict[str, int]  # only the convolutions, plain or transposed

    def __add__(self, other: "Placement") -> "Placement":
        """Return the placement of two parts of a model."""
        return Placement(
            dict(Counter(self.nodes) + Counter(other.nodes)),
            dict(Counter(self.convolutions) + Counter(other.convolutions)),
        )


def read_placement(inference: "onnxruntime.InferenceSession") -> Placement:
    """Read the placement of a session that was built with the entry `RECORD_PLACEMENT`."""
    nodes: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    for subgraph in inference.get_provider_graph_assignment_info():
        provider = short_name(subgraph.ep_name)
        for node in subgraph.get_nodes():
            nodes[provider] += 1
            # Conv, ConvTranspose, ConvInteger, QLinearConv, FusedConv, NhwcFusedConv, ...
            convolutions[provider] += "Conv" in node.op_type
    return Placement(dict(nodes), dict(+convolutions))


def check_convolutions(where: Placement, provider: str) -> None:
    """Reject a session that does its heavy work on another provider than the requested one.

    Args:
        where: The session's placement.
        provider: The requested provider's short name.

    Raises:
        ProviderError: If a convolution is on another provider.
    """
    elsewhere = {name: count for name, count in where.convolutions.items() if name != provider}
    if elsewhere:
        total = sum(where.convolutions.values())
        homes = ", ".join(f"{count} on {name}" for name, count in elsewhere.items())
        raise ProviderError(f"{provider}: cannot run all convolutions of this model: of {total} it leaves {homes}")
