"""How much of the machine a container may use: Linux control groups, versions 1 and 2."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """A container's limits; None means no limit."""

    cores: float | None  # processor time per unit of time, such as 1.5
    memory_bytes: int | None


def read_limits(mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """Read the tightest limits of this process's groups and the groups that contain them.

    Args:
        mount: Where the control groups are mounted.
        membership: The file that lists the process's groups, `number:controllers:/path` on each line.
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
    """Yield the group and all that contain it; in a container the paths may be the host's, which do not exist there."""
    group = mount / path.lstrip("/")
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _numbers(path: Path) -> list[int]:
    """Return the number in a file, in a list; an empty one for `max`, -1, or a missing file."""
    text = _text(path).strip()
    return [int(text)] if text.isdigit() else []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
