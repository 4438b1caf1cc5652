from pathlib import Path

import pytest

from sefa_runtime.machine.cgroup import Limits, read_limits


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def membership(tmp_path: Path, text: str) -> Path:
    write(tmp_path / "self", text)
    return tmp_path / "self"


def test_version_2_the_tightest_of_all_that_contain_the_process(tmp_path: Path, mount: Path) -> None:
    write(mount / "a/b/cpu.max", "max 100000")
    write(mount / "a/cpu.max", "150000 100000")
    write(mount / "cpu.max", "400000 100000")
    write(mount / "a/b/memory.max", "1073741824")
    write(mount / "a/memory.max", "max")
    assert read_limits(mount, membership(tmp_path, "0::/a/b")) == Limits(cores=1.5, memory_bytes=2**30)


def test_version_1(tmp_path: Path, mount: Path) -> None:
    write(mount / "cpu/box/cpu.cfs_quota_us", "50000")
    write(mount / "cpu/box/cpu.cfs_period_us", "100000")
    write(mount / "cpu/cpu.cfs_quota_us", "-1")
    write(mount / "cpu/cpu.cfs_period_us", "100000")
    write(mount / "memory/box/memory.limit_in_bytes", "2147483648")
    groups = membership(tmp_path, "4:memory:/box\n1:cpu,cpuacct:/box\n0::/")
    assert read_limits(mount, groups) == Limits(cores=0.5, memory_bytes=2**31)


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path, mount: Path) -> None:
    write(mount / "cpu.max", "200000 100000")
    write(mount / "memory.max", "max")
    groups = membership(tmp_path, "0::/system.slice/host-only.scope")
    assert read_limits(mount, groups) == Limits(cores=2.0, memory_bytes=None)


def test_no_control_groups_no_limits(tmp_path: Path, mount: Path) -> None:
    assert read_limits(mount, tmp_path / "missing") == Limits(cores=None, memory_bytes=None)
