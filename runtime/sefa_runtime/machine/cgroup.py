"""What a container may use of the machine: Linux control groups, version 1 and 2."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """None: no limit."""

    cores: float | None  # processor time per time, as 1.5
    memory_bytes: int | None


def read_limits(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """Read the tightest limits among this process's groups and those that contain them.

    Args:
        mount: Where the control groups are mounted.
        membership: The file that says which groups the process is in, `number:controllers:/path` on each line.
    """
    cores: list[float] = []
    memory: list[int] = []
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for group in _upwards(mount, path):
                quota, _, period = _text(group / "cpu.max").partition(" ")
                cores += [int(quota) / int(period)] if quota.isdigit() else []
                memory += _numbers(group / "memory.max")
        if "cpu" in controllers.split(","):
            for group in _upwards(mount / "cpu", path):
                quotas, periods = _numbers(group / "cpu.cfs_quota_us"), _numbers(group / "cpu.cfs_period_us")
                cores += [quotas[0] / periods[0]] if quotas and periods else []
        if "memory" in controllers.split(","):
            for group in _upwards(mount / "memory", path):
                memory += _numbers(group / "memory.limit_in_bytes")
    return Limits(min(cores, default=None), min(memory, default=None))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """Yield the group and all that contain it; in a container the names may be the host's, which are not there."""
    group = mount / path.lstrip("/")
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _numbers(path: Path) -> list[int]:
    """Return the number in a file; none for `max`, -1, or a file that is not there."""
    text = _text(path).strip()
    return [int(text)] if text.isdigit() else []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
