"""Make the data set: the glyphs of every usable font face that is installed.

    python -m letters.fonts -o DATA

writes DATA/glyphs.npy, [faces, 62, 64, 64] bytes; DATA/faces.json, a description of each face; and DATA/sources.md, a
table of the packages and their licences. Fonts are found by fontconfig, packages and licences by Debian's dpkg.
"""

import argparse
import json
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from letters.glyphs import CHARACTERS, Coverage, UnusableFaceError, blurred, render_face, variable_instances
from letters.licences import licence_of, source_table

# Hundreds of decorations by one hand, few of which can be read as text, under a licence of their own.
EXCLUDED_PACKAGES = {"fonts-aenigma"}
HELD_OUT = 0.05  # share of the families that training never sees
# Of capitals and small letters that differ in shape, how many must.
UNLIKE_TWINS = ["Aa", "Bb", "Dd", "Ee", "Gg", "Hh", "Nn", "Qq", "Rr", "Tt"]
LEAST_UNLIKE_TWINS = 5
SAME_SHAPE = 0.9
# A face is legible if this share of its glyphs are closer to their own class than to most others.
LEAST_LEGIBLE = 0.6
AMONG_NEAREST = 4
# Faces are duplicates if their blurred glyphs differ by less than this, on average, 0 to 255.
DUPLICATE = 1.5
# Faces of signs, and of small capitals in the place of small letters.
NOT_LETTERS = re.compile(
    r"emoji|symbol|dingbat|math|icon|awesome|barcode|music|braille|smallcap|\bsc\b|-sc\.|caps", re.I
)


@dataclass(frozen=True)
class Face:
    """One face of the data set.

    Attributes:
        file: Path of the font file.
        index: Which face of a collection.
        instance: Named instance of a variable font, or None.
        family: Name of the family.
        style: Name of the style.
        package: Debian package.
        licence: Its licence, as the package's copyright file says.
        held_out: Whether it is kept out of training.
    """

    file: str
    index: int
    instance: str | None
    family: str
    style: str
    package: str
    licence: str
    held_out: bool


def make_data_set(out: Path) -> None:
    """Render, select, describe and save all installed faces."""
    found, glyphs, refused = _render_installed()
    packages = _packages([file for file, *_ in found])
    ours = [i for i, (file, *_) in enumerate(found) if packages[file] and packages[file] not in EXCLUDED_PACKAGES]
    refused["of an excluded package, or of none"] = len(found) - len(ours)
    found, glyphs = [found[i] for i in ours], glyphs[ours]
    keep = select(glyphs)
    refused.update(keep.refused)
    families = sorted({_family_group(found[i][3]) for i in keep.kept})
    random = np.random.default_rng(0)
    held_out = set(random.permutation(families)[: max(1, round(HELD_OUT * len(families)))].tolist())
    faces = []
    for i in keep.kept:
        file, index, instance, family, style = found[i]
        package = packages[file]
        held = _family_group(family) in held_out
        faces.append(Face(file, index, instance, family, style, package, licence_of(package, file), held))
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "glyphs.npy", glyphs[keep.kept])
    (out / "faces.json").write_text(json.dumps([asdict(face) for face in faces], indent=1))
    (out / "sources.md").write_text(source_table([asdict(face) for face in faces]))
    for reason, count in refused.most_common():
        print(f"{count:5} refused: {reason}")
    print(f"{len(faces)} faces, {sum(face.held_out for face in faces)} held out ({len(held_out)} families)")


@dataclass(frozen=True)
class Selection:
    """Which faces are kept, by index, and why how many others are not."""

    kept: list[int]
    refused: Counter[str]


def select(glyphs: Coverage) -> Selection:
    """Choose faces [n, 62, 64, 64] that have small letters, can be read, and are not there already."""
    refused: Counter[str] = Counter()
    kept = [i for i in range(len(glyphs)) if has_small_letters(glyphs[i])]
    refused["no small letters of its own"] = len(glyphs) - len(kept)
    coarse = blurred(glyphs[kept])
    legible = _legible(coarse)
    refused["not legible"] = int((~legible).sum())
    kept = [i for i, good in zip(kept, legible, strict=True) if good]
    coarse = coarse[legible].reshape(len(kept), -1)
    unique: list[int] = []
    for i in range(len(kept)):
        if not unique or np.abs(coarse[unique] - coarse[i]).mean(axis=1).min() >= DUPLICATE:
            unique.append(i)
    refused["duplicate"] = len(kept) - len(unique)
    return Selection([kept[i] for i in unique], refused)


def has_small_letters(face: Coverage) -> bool:
    """Return whether small letters [62, 64, 64] are not just smaller, or the same, capitals."""
    unlike = 0
    for capital, small in map(tuple, UNLIKE_TWINS):
        a, b = (_boxed(face[CHARACTERS.index(character)]) for character in (capital, small))
        unlike += bool((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()) < SAME_SHAPE)
    return unlike >= LEAST_UNLIKE_TWINS


def _render_installed() -> tuple[list[tuple[str, int, str | None, str, str]], Coverage, Counter[str]]:
    """Return what fontconfig finds, as (file, index, instance, family, style), its glyphs, and counts of refusals."""
    listing = _output("fc-list", "--format", "%{file}\t%{index}\t%{family[0]}\t%{style[0]}\n")
    found, glyphs, refused = [], [], Counter[str]()
    seen = set()
    for line in sorted(set(re.findall(r"(?m)^/.*$", listing))):
        file, number, family, style = line.split("\t")
        index = int(number or 0) & 0xFFFF  # the upper half is a named instance
        if (file, index) in seen or NOT_LETTERS.search(f"{Path(file).name} {family} {style}"):
            continue
        seen.add((file, index))
        for instance in variable_instances(Path(file), index):
            try:
                glyphs.append(render_face(Path(file), index, instance))
            except UnusableFaceError as error:
                refused[re.sub(r"^. (is|does)", r"a glyph \1", str(error))] += 1
                continue
            name = instance.decode(errors="replace").strip("\0") if instance else None
            found.append((file, index, name, family, name or style))
    return found, np.stack(glyphs), refused


def _packages(files: Sequence[str]) -> dict[str, str]:
    """Return the Debian package of each file."""
    real = {file: str(Path(file).resolve()) for file in files}
    patterns = [re.sub(r"([][*?\\])", r"\\\1", file) for file in sorted({*real.values(), *files})]
    owner = {}
    for line in _output("dpkg", "-S", *patterns).splitlines():
        package, _, file = line.partition(": ")
        owner[file] = package
    return {file: owner.get(file) or owner.get(target, "") for file, target in real.items()}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _family_group(family: str) -> str:
    """Return what relatives share: Noto Sans Display and Noto Sans Mono are one group."""
    return " ".join(family.split()[:2]).lower()


def _legible(coarse: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return whether most glyphs of a face are like the mean of their class over all faces."""
    unit = coarse / np.linalg.norm(coarse, axis=2, keepdims=True).clip(1e-6)
    legible = np.ones(len(coarse), bool)
    for _ in range(2):  # again without those that are not: they have blurred the means
        means = unit[legible].mean(axis=0)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        similarity = unit @ means.T  # [n, 62, 62]
        own = np.diagonal(similarity, axis1=1, axis2=2)
        rank = (similarity > own[:, :, None]).sum(axis=2)
        legible = (rank < AMONG_NEAREST).mean(axis=1) >= LEAST_LEGIBLE
    return legible


def _boxed(glyph: Coverage) -> NDArray[np.float64]:
    """Stretch a glyph's box to 24x24."""
    box = Image.fromarray(glyph).getbbox()
    return np.asarray(Image.fromarray(glyph).crop(box).resize((24, 24), Image.Resampling.BOX), np.float64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the data set")
    make_data_set(parser.parse_args().out)
