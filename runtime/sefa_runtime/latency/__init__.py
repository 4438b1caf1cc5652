"""Latency: measure it in a scenario, record it with everything it depends on, compare it, plot it."""

from sefa_runtime.latency.compare import Comparison, compare_records
from sefa_runtime.latency.measure import SCENARIOS, measure
from sefa_runtime.latency.record import BatchResult, LatencyRecord, read_record

__all__ = [
    "SCENARIOS",
    "BatchResult",
    "Comparison",
    "LatencyRecord",
    "compare_records",
    "measure",
    "read_record",
]
