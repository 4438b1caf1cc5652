"""The names in pickles: here they are data, and those that are there to run code are refused."""

import re
from dataclasses import dataclass
from typing import NoReturn

from sefa_runtime.errors import ContentError

MAX_LENGTH = 250  # characters of a module or of a name in it
# Python 3 writes Python 2's names into old protocols.
MODERN_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Packages that no checkpoint needs and that attacks use. Nothing is imported for any name, so that others are harmless:
# `code`, `profile` and `trace` are names of people's own modules, too.
RUNNING_PACKAGES = (
    r"os|posix|nt|subprocess|_posixsubprocess|popen2|sys|builtins|__builtins__|importlib|_frozen_importlib|imp|runpy"
    r"|zipimport|pkgutil|shutil|socket|_socket|ctypes|_ctypes|pty|pickle|_pickle|cPickle|marshal|dill|cloudpickle|shelve"
    r"|webbrowser|pdb|bdb|pydoc|cProfile|doctest|multiprocessing|asyncio|smtplib|ftplib|telnetlib|requests|httpx|aiohttp"
    r"|pip|ensurepip|idlelib|lib2to3|linecache"
)
# Parts of packages that checkpoints do need.
RUNNING_PARTS = (
    r"_?io\.(open|FileIO)|codecs\.open|operator\.(attrgetter|methodcaller)|types\.(Code|Function|Lambda)Type"
    r"|urllib\.request|http\.client|logging\.config|numpy\.(f2py|distutils|testing|load|fromfile|memmap|lib)"
    r"|torch\.(hub|load|serialization\.load|jit|package|ops|_ops|_inductor)"
    r"|torch\.utils\.(cpp_extension|model_zoo|collect_env)"
)
RUNNING = re.compile(rf"({RUNNING_PACKAGES}|{RUNNING_PARTS})(\..*)?", re.DOTALL)
# A dotted name, such as "serialization.os.system" of torch, would walk through what a module imported.
WALKED = frozenset(RUNNING_PACKAGES.split("|"))
# The builtins that plain data is made of, and getattr, by which Python pickles bound methods.
HARMLESS = re.compile(
    r"builtins\.(set|frozenset|list|dict|tuple|int|long|float|complex|bool|str|unicode|bytes|bytearray|object|slice"
    r"|range|xrange|getattr|Ellipsis|NotImplemented)"
)


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, as the pickle has it; nothing is ever imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def look_up(module: str, name: str) -> Name:
    """Return the name, if a checkpoint may have it.

    Raises:
        ContentError: If it is there to run code, or as long as no name is.
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
    raise ContentError(f"a pickle that wants to run {str(name)[:80]}: refused, nothing in it was run")
