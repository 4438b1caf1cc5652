import pytest

from sefa import ArgumentError
from sefa.bank.naming import Change, find, find_all, parse_change, parse_range, resolve

NAMES = ("pose", "light", "direction-2", "direction-3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0=pose", ("0", Change("pose"))),
        ("3=smile:-1", ("3", Change("smile", flip=True))),
        ("0=pose:[-4,4]", ("0", Change("pose", alpha_range=(-4, 4)))),
        ("pose = turn left : [-1.5, 2] : -1", ("pose", Change("turn left", True, (-1.5, 2)))),
        ("0=:-1", ("0", Change(flip=True))),
        ("0=:[0,1]", ("0", Change(alpha_range=(0, 1)))),
    ],
)
def test_a_change_is_read(text: str, expected: tuple[str, Change]) -> None:
    assert parse_change(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "pose",
        "0=",
        "=pose",
        "0=a:b",
        "0=a:1",
        "0=a:[1]",
        "0=a:[2,1]",
        "0=a:[0,inf]",
        "0=a:[0,nan]",
        "0=a:[a,b]",
        "0=a:-1:-1",
        "0=a:[0,1]:[0,2]",
        "0=a:[1,2,3]",
    ],
)
def test_what_is_no_change_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        parse_change(text)


def test_a_range_alone_is_read() -> None:
    assert parse_range("light=-4:4.5") == ("light", Change(alpha_range=(-4, 4.5)))
    for text in ("light", "=1:2", "0=1", "0=1:2:3", "0=2:2"):
        with pytest.raises(ArgumentError):
            parse_range(text)


def test_directions_are_found_by_index_and_by_name() -> None:
    assert [find(NAMES, text) for text in ("0", "light", " direction-3 ", "3")] == [0, 1, 3, 3]
    assert find_all(NAMES, "3,0-1, direction-2") == [3, 0, 1, 2]


@pytest.mark.parametrize("text", ["4", "-1", "smile", ""])
def test_a_direction_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"0\.\.3|no direction is named"):
        find(NAMES, text)


@pytest.mark.parametrize("text", ["0,0", "0,pose", "3-1", "0-9", "pose,"])
def test_a_list_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError):
        find_all(NAMES, text)


def test_a_new_name_may_be_used_at_once_where_it_is_no_old_one() -> None:
    told = [parse_range("turn=0:2"), parse_change("3=turn")]
    assert resolve(NAMES, told) == {3: Change("turn", False, (0, 2))}
    told = [parse_change("0=light"), parse_change("1=pose"), parse_range("light=0:2")]
    assert resolve(NAMES, told) == {0: Change("light"), 1: Change("pose", False, (0, 2))}


def test_changes_of_one_direction_are_joined() -> None:
    told = [parse_change("0=turn"), parse_range("pose=0:2"), parse_change("light=:-1")]
    assert resolve(NAMES, told) == {0: Change("turn", False, (0, 2)), 1: Change(flip=True)}
    with pytest.raises(ArgumentError, match="changed twice"):
        resolve(NAMES, [parse_change("0=a"), parse_change("pose=b")])
