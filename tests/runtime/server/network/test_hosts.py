"""Which hosts requests may be addressed to: a page whose name was pointed at this machine gets nothing."""

from http.client import HTTPConnection
from typing import Any

import pytest

from sefa_runtime.errors import InputError
from sefa_runtime.server.errors import HostError
from sefa_runtime.server.network.hosts import Hosts
from sefa_runtime.server.settings import Settings
from support.paths import TINY
from support.patience import PATIENCE_S
from support.serving import Start

HERE = ["localhost", "LocalHost:8000", "localhost.", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3", "[::1]", "[::1]:8000"]
HERE_TOO = ["[::ffff:127.0.0.1]:80"]
ELSEWHERE = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
ELSEWHERE_TOO = ["[2001:db8::1]:8000", "[", "localhost@evil.example", "0.0.0.0"]


def answered(settings: Settings, header: str | None, *, is_local: bool) -> bool:
    try:
        Hosts(settings, is_local=is_local).check(header)
    except HostError:
        return False
    return True


@pytest.mark.parametrize("header", [*HERE, *HERE_TOO, None])
def test_a_local_server_answers_for_this_machine(header: str | None) -> None:
    assert answered(Settings(), header, is_local=True)


@pytest.mark.parametrize("header", [*ELSEWHERE, *ELSEWHERE_TOO])
def test_a_local_server_answers_for_no_other_name(header: str) -> None:
    assert not answered(Settings(), header, is_local=True)


@pytest.mark.parametrize(
    ("settings", "is_local", "header", "expected"),
    [
        ({"allow_hosts": ("Example.org",)}, True, "example.ORG:443", True),
        ({"allow_hosts": ("example.org",)}, True, "localhost", True),
        ({"allow_hosts": ("example.org",)}, True, "www.example.org", False),
        ({"allow_hosts": ("*",)}, True, "anything.example", True),
        ({"host": "workstation"}, True, "workstation:8000", True),
        ({"host": "[::1]"}, True, "[::1]:8000", True),
        ({}, False, "anything.example", True),
        ({"allow_hosts": ("example.org",)}, False, "example.org", True),
        ({"allow_hosts": ("example.org", "10.0.0.1")}, False, "10.0.0.1:8000", True),
        ({"allow_hosts": ("example.org",)}, False, "localhost", False),
    ],
)
def test_names_can_be_added(settings: dict[str, Any], is_local: bool, header: str, expected: bool) -> None:
    assert answered(Settings(**settings), header, is_local=is_local) is expected


@pytest.mark.parametrize("host", ["http://example.org", "example.org:80", "a b", "", "example.org/x"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="allow-host"):
        Settings(allow_hosts=(host,))


def test_over_http_every_address_is_closed_to_other_names(start_once: Start) -> None:
    server = start_once(TINY)
    paths = ["/", "/models/tiny/image?seed=1", "/v2/models/tiny", "/v2/health/live", "/metrics", "/nothing"]
    statuses = {}
    for host in ("localhost", f"rebound.example:{server.port}"):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        for path in paths:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            body = answer.read()
            statuses[host, path] = answer.status
            if "rebound" in host:
                assert b"--allow-host" in body
                assert b"rebound.example'" in body
        connection.close()
    assert [statuses["localhost", path] for path in paths] == [200, 200, 200, 200, 200, 404]
    assert {statuses[f"rebound.example:{server.port}", path] for path in paths} == {421}
