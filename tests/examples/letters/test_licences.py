import re
from pathlib import Path

import pytest

from letters.licences import is_copyleft_alone, licence_of, source_table
from support.paths import ROOT

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: somebody
License: GPL-2+

Files: fonts/Bold*.sfd
 fonts/Black.sfd
License: OFL

Files: *.ttf
License: MIT

Files: doc/*
License: GFDL-2

Files:
 debian/*
License: ISC
"""


@pytest.mark.parametrize(
    ("file", "licence"),
    [
        ("/usr/share/fonts/x/BoldItalic.ttf", "OFL-1.1"),  # the name says more than the ending
        ("/usr/share/fonts/x/Black.otf", "OFL-1.1"),
        ("/usr/share/fonts/x/Regular.otf", "MIT"),
    ],
)
def test_the_paragraph_that_speaks_of_the_font_counts(tmp_path: Path, file: str, licence: str) -> None:
    (tmp_path / "fonts-x").mkdir()
    (tmp_path / "fonts-x/copyright").write_text(COPYRIGHT)
    assert licence_of("fonts-x", file, tmp_path) == licence
    assert licence_of("fonts-y", file, tmp_path) == "unknown"
    (tmp_path / "fonts-x/copyright").write_text("This is free software.")
    assert licence_of("fonts-x", file, tmp_path) == "see its copyright file"


@pytest.mark.parametrize(
    ("licence", "alone"),
    [
        ("GPL-2.0-or-later", True),
        ("GPL-2.0-or-later WITH Font-exception-2.0", False),
        ("OFL-1.1 or LGPL-2.1-only", False),
        ("CC-BY-SA-3.0", True),
        ("CC-BY-3.0", False),
        ("AGPL-3.0-only WITH PS-or-PDF-font-exception-20170817", False),
    ],
)
def test_which_licences_are_copyleft_without_a_way_around(licence: str, alone: bool) -> None:
    assert is_copyleft_alone(licence) is alone


def test_the_table_has_every_package_and_every_face() -> None:
    written = (ROOT / "examples/letters/sources.md").read_text()
    rows = re.findall(r"^\| (fonts-\S+) \| (.+) \| (\d+) \|$", written, re.MULTILINE)
    packages = (ROOT / "examples/letters/packages.txt").read_text().split()
    assert {package for package, *_ in rows} == set(packages)
    faces = [{"package": name, "licence": licence} for name, licence, count in rows for _ in range(int(count))]
    assert source_table(faces) == written
    readme = (ROOT / "examples/letters/README.md").read_text()
    alone = [face for face in faces if is_copyleft_alone(face["licence"])]
    assert f"{len(faces)} faces" in readme
    assert f"{len(alone)} of the {len(faces)} faces" in readme
    assert all(f"`{face['package']}`" in readme for face in alone)
