"""Calls written as text: what is read, and that nothing is evaluated."""

import pytest

from sefa import ArgumentError
from sefa.custom.calls.call_text import parse_call


@pytest.mark.parametrize(
    ("text", "positional", "keywords"),
    [
        ("z", [1], {}),
        ("z,None", [1, None], {}),
        ("None, label, x = z", [None, 2], {"x": 1}),
        ("[z], truncation_psi=-0.7, noise_mode='const'", [[1]], {"truncation_psi": -0.7, "noise_mode": "const"}),
        ("z, c=None,", [1], {"c": None}),
        ("({'z': z, 'y': [label, True]},), 1e3", [({"z": 1, "y": [2, True]},), 1000.0], {}),
    ],
)
def test_a_call_is_read(text: str, positional: list[object], keywords: dict[str, object]) -> None:
    call = parse_call(text)
    assert call.filled({"z": 1, "label": 2}) == (positional, keywords)
    assert call.takes_label == ("label" in text)
    assert call.text == text.strip()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs z once"),
        ("c=None", "needs z once"),
        ("z,z", "needs z once"),
        ("z,label,y=label", "label at most once"),
        ("z,c=y", "knows the names z and label, and literals, got y: "),
        ("z,noise_mode=const", "write a text with quotes, 'const'"),
        ("z,open('secret')", "nothing that is computed, got "),
        ("z,__import__('os').system('x')", "nothing that is computed"),
        ("z.zero_()", "nothing that is computed, got 'z.zero_\\(\\)'"),
        ("z[0]", "nothing that is computed"),
        ("z,2+2", "nothing that is computed"),
        ("z,[1 for _ in (1, 2)]", "nothing that is computed|knows the names"),
        ("z,f'{1}'", "nothing that is computed"),
        ("z,{**{}}", "nothing that is computed"),
        ("*[z]", "nothing that is computed"),
        ("z,**{'a': 1}", "has no \\*\\*"),
        ("z)+open('a'", "arguments of forward as in Python|nothing that is computed"),
        ("z) or (z", "arguments of forward as in Python"),
        ("z,c=", "arguments of forward as in Python: it looks like z,None,truncation_psi=1"),
        ("z,c=1,c=2", "c twice"),
        ("z,\0", "arguments of forward as in Python"),
        ("z," + "[" * 600, "arguments of forward as in Python"),
        ("z," + "1," * 600, "may have 1000 characters"),
    ],
)
def test_nothing_else_is_read(text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse_call(text)
