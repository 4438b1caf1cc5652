"""Text of any origin, made fit for a terminal, a log or a command line.

File names, titles and messages may hold what a terminal acts upon: escape sequences, carriage returns that write over
what is there, marks that reverse the reading direction.
"""

import shlex
import unicodedata


def printable(text: str) -> str:
    """Return the text as one line, with everything that is not seen as itself as an escape: ESC is `\\x1b`.

    Bytes of a file name that is not UTF-8 come out as those bytes: `\\xff`.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_seen(character) else _escaped(character) for character in text)


def printable_json(document: str) -> str:
    """Return a JSON document, as `json.dumps` wrote it, with such characters as JSON's own escapes."""
    if document.isascii() and "\x7f" not in document:
        return document
    # Outside of its strings it has no character of the kind but line breaks.
    return "".join(
        character if character == "\n" or _is_seen(character) else _escaped_in_json(character) for character in document
    )


def quoted(word: str) -> str:
    """Return a word as a POSIX shell reads it back; with characters that are not printable, as Bash and Zsh do."""
    if printable(word) == word:
        return shlex.quote(word)
    # Backslashes and quotes first: what follows has backslashes of its own.
    return f"$'{printable(word.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39)))}'"


def _is_seen(character: str) -> bool:
    # Spaces of other widths, as names in Japanese have, are no danger.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # How Python keeps a byte that is not UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    if 0x80 <= code <= 0xFF:  # Not \\x9b, which is a byte.
        return f"\\u{code:04x}"
    return character.encode("unicode_escape").decode()


def _escaped_in_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
