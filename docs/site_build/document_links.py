"""Documents lie in the repository, where their links lead to files; in the site, the same links lead to pages."""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Code is left as it is: fenced blocks, and parts of a line. A link is text in brackets, which may hold an image or
# code, and a target that is neither an address nor a place on the same page.
FENCED = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
CODE_OR_LINK = re.compile(r"`[^`\n]+`|(!?)\[((?:[^\[\]]|!?\[[^\[\]]*\](?:\([^()]*\))?)*)\]\((?![a-z]+:|#)([^()\s]+)\)")
LIST_AFTER_TEXT = re.compile(r"^(?![#|>]|[-*] |\d+\. |\s)(.+\n)(?=(?:[-*]|\d+\.) )", re.MULTILINE)


def to_site(text: str, source: str, page: str, pages: Mapping[str, str]) -> tuple[str, set[str]]:
    """Turn the relative links of a document into those of its page.

    Args:
        text: The document, as Markdown.
        source: Where it lies in the repository.
        page: Where its page lies in the site.
        pages: Where documents from outside docs/ lie in the site, by their places in the repository; and by a place
            and an anchor, the pages that exist in the site only.

    Returns:
        text: The page's Markdown. A link to a folder of the repository has become text.
        files: The files of the repository that it links to and that are no pages: they lie in the site under `files/`.
    """
    files = set[str]()

    def changed(match: re.Match[str]) -> str:
        mark, name, target = match.groups()
        if target is None:  # Code.
            return match[0]
        name = CODE_OR_LINK.sub(changed, name)
        path, hash_sign, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if f"{place}#{anchor}" in pages:
            return f"{mark}[{name}]({posixpath.relpath(pages[f'{place}#{anchor}'], posixpath.dirname(page))})"
        if place in pages:
            goal = pages[place]
        elif place.startswith("docs/"):
            goal = place.removeprefix("docs/")
        elif (ROOT / place).is_dir():
            return name
        elif (ROOT / place).is_file():
            files.add(place)
            goal = f"files/{place}"
        else:  # For MkDocs to complain of.
            goal = path
        return f"{mark}[{name}]({posixpath.relpath(goal, posixpath.dirname(page))}{hash_sign}{anchor})"

    parts = FENCED.split(text)
    parts[::2] = [CODE_OR_LINK.sub(changed, part) for part in parts[::2]]
    return "".join(parts), files


def spaced(text: str) -> str:
    """Put an empty line before each list that follows a paragraph, as Python's Markdown wants and GitHub's does not."""
    parts = FENCED.split(text)
    parts[::2] = [LIST_AFTER_TEXT.sub(r"\1\n", part) for part in parts[::2]]
    return "".join(parts)
