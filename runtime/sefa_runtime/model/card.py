"""What the owner of a generator says of it: licence and note, text of any origin that a file carries along."""

# A licence is an SPDX expression or its name; a note may be a paragraph.
MAX_LICENSE, MAX_NOTE = 200, 2000


def card_problems(license: str, note: str) -> list[str]:
    """Return what is wrong with a licence and a note; an empty list if nothing is. Either may be empty."""
    problems = []
    for name, text, most in (("license", license, MAX_LICENSE), ("note", note, MAX_NOTE)):
        if len(text) > most:
            problems.append(f"{name} has {len(text)} characters, {most} is the most")
        elif not text.isprintable() or text != text.strip():
            problems.append(f"{name} must be one line of printable text, got {text[:100]!r}")
    return problems


def tidied(text: str, most: int) -> str:
    """Return text from another tool's file as one printable line of at most `most` characters."""
    line = " ".join(text[: 8 * most].split())
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= most else f"{shown[: most - 3].rstrip()}..."
