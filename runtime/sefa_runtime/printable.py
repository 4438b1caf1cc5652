"""Make text of any origin safe for a terminal, a log or a command line.

File names, titles and messages may contain what a terminal acts on: escape sequences, carriage returns that overwrite
the line, marks that reverse the reading direction.
"""

import shlex
import unicodedata


def printable(text: str) -> str:
    """Return the text as one line, with every character that is not displayed as itself escaped: ESC is `\\x1b`.

    Bytes of a file name that is not UTF-8 appear as those bytes: `\\xff`.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_seen(character) else _escaped(character) for character in text)


def printable_json(document: str) -> str:
    """Return a JSON document, as written by `json.dumps`, with such characters as JSON escapes."""
    if document.isascii() and "\x7f" not in document:
        return document
    # Outside its strings, line breaks are the only such characters.
    return "".join(
        character if character == "\n" or _is_seen(character) else _escaped_in_json(character) for character in document
    )


def quoted(word: str) -> str:
    """Quote a word for a POSIX shell; if it has unprintable characters, in the syntax of Bash and Zsh."""
    if printable(word) == word:
        return shlex.quote(word)
    # Escape backslashes and quotes first: the escapes that follow contain backslashes themselves.
    return f"$'{printable(word.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39)))}'"


def _is_seen(character: str) -> bool:
    # Spaces of other widths, as in Japanese names, are harmless.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # Python's surrogate for a byte that is not UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:  # Not as \\x9b, which means a byte.
        return f"\\u{code:04x}"
    return character.encode("unicode_escape").decode()


def _escaped_in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
