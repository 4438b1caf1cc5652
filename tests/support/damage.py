"""Files that something happened to."""

import io
import random
import zipfile
from collections.abc import Sequence

HEADER = 6000  # bytes, roughly, that say what the file is


def damaged(content: bytes, seed: int) -> bytes:
    """Cut, shorten, lengthen or overwrite a file, mostly where it says what it is."""
    rng = random.Random(seed)
    changed = bytearray(content)
    kind = rng.randrange(6)
    for _ in range(rng.choice([1, 1, 2, 8])):
        end = HEADER if rng.random() < 0.7 else len(changed)
        at = rng.randrange(max(1, min(end, len(changed))))
        if kind == 0:
            del changed[at + 1 :]
        elif kind == 1:
            del changed[at : at + rng.choice([1, 2, 100])]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice([1, 4, 8]))
        elif kind == 3:
            changed[at] ^= 1 << rng.randrange(8)
        else:
            changed[at] = rng.choice([0, 255, *b".Rbth(u", rng.randrange(256)])
    return bytes(changed)


def rezipped(content: bytes, seed: int, members: Sequence[str] = ("data.pkl",)) -> bytes:
    """Damage the members of a zip archive whose names end so, with checksums that are right again."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as changed:
        for member in archive.infolist():
            data = archive.read(member)
            changed.writestr(member.filename, damaged(data, seed) if member.filename.endswith(tuple(members)) else data)
    return file.getvalue()
