import json
import os
import subprocess
import sys
import unicodedata

import pytest

from sefa_runtime.printable import printable, printable_json, quoted

# What a terminal acts upon, or shows as something else than what stands there.
HOSTILE = {
    "clipboard": ("\x1b]52;c;cm0gLXJmIH4=\x07", r"\x1b]52;c;cm0gLXJmIH4=\x07"),
    "title": ("\x1b]0;root\x07", r"\x1b]0;root\x07"),
    "colour": ("\x1b[31mred", r"\x1b[31mred"),
    "C1 control": ("\x9b31m", r"\u009b31m"),
    "faked line": ("a\r\nsefa: ok", r"a\r\nsefa: ok"),
    "line separator": ("a\u2028b\u0085c", r"a\u2028b\u0085c"),
    "bidi override": ("gnp.\u202egpj", r"gnp.\u202egpj"),
    "zero width": ("a\u200bb", r"a\u200bb"),
    "lone surrogate": ("\ud800", r"\ud800"),
    "not UTF-8": (os.fsdecode(b"\xff.pth"), r"\xff.pth"),
    "private use": ("\U00100000", r"\U00100000"),
}
HARMLESS = ["", "face.png", "Größe, 表情, emoji 😀", "全角\u3000空白", "a\u00a0b", r"C:\new"]


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_would_act_upon_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_no_control_or_format_character_is_left_in_any_text() -> None:
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    for shown in (printable(text), printable_json(json.dumps(text, ensure_ascii=False))):
        assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize("text", [text for text, _ in HOSTILE.values()] + HARMLESS)
def test_a_document_says_the_same_after_it_was_escaped(text: str) -> None:
    document = {"names": [text], text: 1}
    shown = printable_json(json.dumps(document, indent=2, ensure_ascii=False))
    assert json.loads(shown) == document
    shown.encode("utf-8")


@pytest.mark.parametrize(
    "word",
    ["plain.onnx", "two words.onnx", "; touch x;.onnx", "$(id)", "it's", "a\nb", "\x1b[1m'\\q", os.fsdecode(b"\xff")],
)
def test_bash_reads_a_quoted_word_back(word: str) -> None:
    command = f"printf %s {quoted(word)}"
    assert printable(command) == command
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)
