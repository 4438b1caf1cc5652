"""`python no_network.py sockets|connections CODE ...`: runs code that the kernel ends if it reaches for the network.

A filter of system calls (seccomp(2), Linux) sees what any library does. `sockets`: none may be made but those inside
the machine. `connections`: sockets may be made and listened on, and connect to nothing.
"""

import ctypes
import platform
import struct
import sys

# Numbers of socket(2) and connect(2).
CALLS = {"x86_64": (41, 42), "aarch64": (198, 203)}
AF_INET, AF_INET6 = 2, 10
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of linux/bpf_common.h
KILL, ALLOW = 0x80000000, 0x7FFF0000  # of linux/seccomp.h
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2  # of linux/prctl.h
NUMBER, FIRST_ARGUMENT = 0, 16  # offsets in what the filter sees of a call
KILLED = -31  # SIGSYS: the exit code of a process that did it


def supported() -> bool:
    """Return whether this machine has such filters, and their numbers are known."""
    return sys.platform == "linux" and platform.machine() in CALLS


def forbid(what: str) -> None:
    """Forbid it to this process, for good."""
    socket_call, connect_call = CALLS[platform.machine()]
    if what == "sockets":
        program = [
            (LOAD, 0, 0, NUMBER),
            (EQUAL, 0, 4, socket_call),
            (LOAD, 0, 0, FIRST_ARGUMENT),
            (EQUAL, 1, 0, AF_INET),
            (EQUAL, 0, 1, AF_INET6),
            (RETURN, 0, 0, KILL),
            (RETURN, 0, 0, ALLOW),
        ]
    else:
        program = [
            (LOAD, 0, 0, NUMBER),
            (EQUAL, 0, 1, connect_call),
            (RETURN, 0, 0, KILL),
            (RETURN, 0, 0, ALLOW),
        ]

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))

    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    loaded = Program(len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(loaded)):
        raise OSError(ctypes.get_errno(), "no filter of system calls")


if __name__ == "__main__":
    forbidden, code_to_run, *sys.argv[1:] = sys.argv[1:]
    forbid(forbidden)
    exec(code_to_run, {"__name__": "__main__"})
