"""The names in pickles: they are treated as data, and those meant to run code are refused."""

import re
from dataclasses import dataclass
from typing import NoReturn

from sefa_runtime.errors import ContentError
from sefa_runtime.printable import printable

MAX_LENGTH = 250  # characters in the name of a module or of something in it
# With old protocols, Python 3 writes Python 2's names.
MODERN_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Packages that no checkpoint needs and that attacks use. Nothing is imported for any name, so others are harmless:
# people give their own modules names such as `code`, `profile` and `trace`.
RUNNING_PACKAGES = (
    r"os|posix|nt|subprocess|_posixsubprocess|popen2|sys|builtins|__builtins__|importlib|_frozen_importlib|imp|runpy"
    r"|zipimport|pkgutil|shutil|socket|_socket|ctypes|_ctypes|pty|pickle|_pickle|cPickle|marshal|dill|cloudpickle|shelve"
    r"|webbrowser|pdb|bdb|pydoc|cProfile|doctest|multiprocessing|asyncio|smtplib|ftplib|telnetlib|requests|httpx|aiohttp"
    r"|pip|ensurepip|idlelib|lib2to3|linecache"
)
# Dangerous parts of packages that checkpoints do need.
RUNNING_PARTS = (
    r"_?io\.(open|FileIO)|codecs\.open|operator\.(attrgetter|methodcaller)|types\.(Code|Function|Lambda)Type"
    r"|urllib\.request|http\.client|logging\.config|numpy\.(f2py|distutils|testing|load|fromfile|memmap|lib)"
    r"|torch\.(hub|load|serialization\.load|jit|package|ops|_ops|_inductor)"
    r"|torch\.utils\.(cpp_extension|model_zoo|collect_env)"
)
RUNNING = re.compile(rf"({RUNNING_PACKAGES}|{RUNNING_PARTS})(\..*)?", re.DOTALL)
# A dotted name, such as torch's "serialization.os.system", would reach through a module's own imports.
WALKED = frozenset(RUNNING_PACKAGES.split("|"))
# The builtins that plain data is made of, and getattr, which Python uses to pickle bound methods.
HARMLESS = re.compile(
    r"builtins\.(set|frozenset|list|dict|tuple|int|long|float|complex|bool|str|unicode|bytes|bytearray|object|slice"
    r"|range|xrange|getattr|Ellipsis|NotImplemented)"
)


@dataclass(frozen=True)
class Name:
    """A function or class named in a pickle, spelled as there; nothing is ever imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def look_up(module: str, name: str) -> Name:
    """Return the name, if a checkpoint may contain it.

    Raises:
        ContentError: If it is meant to run code, or is longer than any real name.
    """
    if len(module) > MAX_LENGTH or len(name) > MAX_LENGTH:
        raise ContentError("damaged: the name of a class is too long")
    found = Name(MODERN_MODULES.get(module, module), name)
    walks = not WALKED.isdisjoint(name.split(".")[:-1])
    if (walks or RUNNING.fullmatch(str(found))) and not HARMLESS.fullmatch(str(found)):
        refuse_to_run(found)
    return found


def refuse_to_run(name: Name) -> NoReturn:
    """Refuse a file that is an attack.

    Raises:
        ContentError: Always.
    """
    raise ContentError(f"a pickle that wants to run {printable(str(name)[:80])}: refused, nothing in it was run")
