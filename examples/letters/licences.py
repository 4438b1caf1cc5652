"""Under which licence is a font? What its Debian package's copyright file says of the file, as an SPDX expression.

    python -m letters.licences DATA/faces.json -o examples/letters/sources.md

reads the copyright files of the installed packages again and writes the table of the data set's sources.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

DOC = Path("/usr/share/doc")
FONT_EXCEPTION = "WITH Font-exception-2.0"
# Copyright files that are prose, and those whose paragraphs name folders of the source that the package does not show.
READ_BY_HAND = {
    "fonts-century-catalogue": "OFL-1.0",
    "fonts-dustin": "GPL, no version named",
    "fonts-gfs-artemisia": "OFL-1.1",
    "fonts-gfs-didot": "OFL-1.1",
    "fonts-gfs-neohellenic": "OFL-1.1",
    "fonts-hermit": "OFL-1.1",
    "fonts-inconsolata": "OFL-1.0",
    "fonts-jura": "OFL-1.1",  # GPL-3.0-or-later or OFL-1.1 for the Kayah Li letters alone
    "fonts-lao": "LGPL-2.1-or-later",
    "fonts-liberation": f"GPL-2.0-only {FONT_EXCEPTION}",
    "fonts-linex": "GPL-2.0-or-later",
    "fonts-lmodern": "GUST Font License (LPPL)",
    "fonts-lyx": "BaKoMa Fonts Licence",
    "fonts-oldstandard": "OFL-1.0",
    "fonts-sil-galatia": "OFL-1.1",
    "fonts-smc-gayathri": "OFL-1.1",
    "fonts-smc-manjari": "OFL-1.1",
    "fonts-tlwg-purisa-ttf": f"GPL-2.0-or-later {FONT_EXCEPTION}",  # its oblique is made from Purisa.sfd
}
# What copyright files call the licences, where that is not SPDX's name.
SPDX = {
    "AGPL-3 with Font exception": "AGPL-3.0-only WITH PS-or-PDF-font-exception-20170817",
    "Apache-2": "Apache-2.0",
    "BSD-3-clause": "BSD-3-Clause",
    "BSD3|SIL": "BSD-3-Clause or OFL-1.1",
    "Bitstream-Vera-Copyright": "Bitstream-Vera",
    "CC-BY-3.0 and Bitstream": "CC-BY-3.0 and Bitstream-Vera",
    "CC-BY-SA-3": "CC-BY-SA-3.0",
    "GPL-2+ with Font exception": f"GPL-2.0-or-later {FONT_EXCEPTION}",
    "GPL-2+ with Font exception and OFL-1.1": f"GPL-2.0-or-later {FONT_EXCEPTION} and OFL-1.1",
    "GPL-2+FE": f"GPL-2.0-or-later {FONT_EXCEPTION}",
    "GPL-2.0+": "GPL-2.0-or-later",
    "GPL-3": "GPL-3.0-only",
    "GPL-3+FontException or OFL-1.1": f"GPL-3.0-or-later {FONT_EXCEPTION} or OFL-1.1",
    "GPL-3+_with-font-exception": f"GPL-3.0-or-later {FONT_EXCEPTION}",
    "GPL-3-only+FE or LGPL-3-only+FE or GPL-2-only+FE": f"GPL-3.0-only {FONT_EXCEPTION} or LGPL-3.0-only "
    f"{FONT_EXCEPTION} or GPL-2.0-only {FONT_EXCEPTION}",
    "GPL-3.0+ with Font Exception": f"GPL-3.0-or-later {FONT_EXCEPTION}",
    "GPL-3.0+ with Font Exception or OFL-1.1": f"GPL-3.0-or-later {FONT_EXCEPTION} or OFL-1.1",
    "GPL2+-with-font-exception": f"GPL-2.0-or-later {FONT_EXCEPTION}",
    "GPL3+-with-font-exception": f"GPL-3.0-or-later {FONT_EXCEPTION}",
    "IPA-1": "IPA",
    "IPA-1.0": "IPA",
    "LGPL-2.1+": "LGPL-2.1-or-later",
    "OFL": "OFL-1.1",
    "OFL-1.1 or BSD-3-clause": "OFL-1.1 or BSD-3-Clause",
    "OFL-1.1 or LGPL-2.1": "OFL-1.1 or LGPL-2.1-only",
    "ParaType-Free-Font-License": "ParaType Free Font License",
    "Public Domain": "public domain",
    "SIL Open Font License": "OFL-1.1",
    "SIL-1.1": "OFL-1.1",
    "SIL-OFL-1.1": "OFL-1.1",
    "bitstream-vera": "Bitstream-Vera",
    "public-domain": "public domain",
}
# Of several licences joined by "or" one may choose; those that ask for the same licence of derived works.
COPYLEFT = re.compile(r"\b(GPL|LGPL|AGPL|CC-BY-SA)")


class Paragraph(NamedTuple):
    """A copyright file's statement about files, by patterns of their paths in the source."""

    patterns: tuple[str, ...]
    licence: str


def licence_of(package: str, file: str, doc: Path = DOC) -> str:
    """Return a font's licence.

    Args:
        package: Its Debian package.
        file: Its path on this machine, which is not the one in the source that the copyright file speaks of.
        doc: The folder of the packages' documentation.
    """
    if package in READ_BY_HAND:
        return READ_BY_HAND[package]
    path = doc / package / "copyright"
    if not package or not path.exists():
        return "unknown"
    stem = Path(file).resolve().stem.lower()
    chosen, best = "see its copyright file", -1
    for patterns, licence in paragraphs(path.read_text(errors="replace")):
        rank = max((_rank(pattern.lower(), stem) for pattern in patterns), default=-1)
        if rank >= max(best, 0):  # The last of equals counts.
            chosen, best = licence, rank
    return SPDX.get(chosen, chosen)


def paragraphs(text: str) -> list[Paragraph]:
    """Return what a machine-readable copyright file says of files, but for Debian's own."""
    found = []
    for part in re.split(r"\n\s*\n", text):
        files = re.search(r"^Files:(.*(?:\n[ \t]+.*)*)", part, re.M)
        licence = re.search(r"^License: *(\S.*)$", part, re.M)
        if files and licence:
            ours = tuple(name for name in re.split(r"[\s,]+", files[1].strip()) if not name.startswith("debian/"))
            found.append(Paragraph(ours, licence[1].strip()))
    return found


def _rank(pattern: str, stem: str) -> int:
    """Return how closely a pattern speaks of a font: by name 2, of all sources of fonts 1, of everything 0; else -1."""
    name, dot, ending = pattern.rpartition("/")[2].rpartition(".")
    name = name if dot else ending
    if name.strip("*"):
        return 2 if fnmatch(stem, name) else -1
    if dot and ending in ("sfd", "ttf", "otf"):
        return 1
    return 0 if pattern == "*" else -1


def is_copyleft_alone(licence: str) -> bool:
    """Return whether derived fonts must keep the licence, with no exception for documents and no other to choose."""
    choices = re.split(r" or (?!later)", licence)
    return all(COPYLEFT.search(choice) and "exception" not in choice for choice in choices)


def source_table(faces: Iterable[Mapping[str, Any]]) -> str:
    """Return Markdown tables of the packages and of the licences, with how many faces are of each."""
    counts = Counter((face["package"] or "none", face["licence"]) for face in faces)
    rows = [f"| {package} | {licence} | {count} |" for (package, licence), count in sorted(counts.items())]
    of_licence, packages = Counter[str](), Counter[str]()
    for (_, licence), count in counts.items():
        of_licence[licence] += count
        packages[licence] += 1
    by_count = sorted(of_licence.items(), key=lambda pair: (-pair[1], pair[0]))
    summary = [f"| {licence} | {packages[licence]} | {count} |" for licence, count in by_count]
    return "\n".join([
        "# Where the faces are from", "",
        "`python -m letters.licences` made these tables from Debian's copyright files; those that are prose were read "
        "by hand.", "",
        "| licence | packages | faces |", "|---|---|---|", *summary, "",
        "| Debian package | licence of the faces used | faces |", "|---|---|---|", *rows, "",
    ])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("faces", type=Path, help="faces.json of a data set, made on this machine")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the table to write")
    given = parser.parse_args()
    found = json.loads(given.faces.read_text())
    for one in found:
        one["licence"] = licence_of(one["package"], one["file"])
    given.out.write_text(source_table(found))
    alone = Counter(one["package"] for one in found if is_copyleft_alone(one["licence"]))
    print(f"{sum(alone.values())} of {len(found)} faces are under copyleft alone: {', '.join(sorted(alone))}")
