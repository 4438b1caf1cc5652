"""Ctrl-C and SIGTERM: the first signal lets a command clean up, the second ends the process, whatever it is doing.

Python runs signal handlers in the main thread, between two bytecodes, and so never while native code occupies that
thread, as a graph with an endless loop does. A second thread that waits for signals is notified at once.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

# Time limit for flushing stdout and stderr: their reader may be gone, or a lock may be held.
FLUSH_S = 0.5


@contextlib.contextmanager
def watched_signals() -> Iterator[None]:
    """Handle SIGINT and SIGTERM; must be called in the main thread.

    Handlers that a command sets itself, as the server does, remain in effect.
    """
    handled: list[int] = []

    def interrupt(number: int, frame: object) -> NoReturn:
        handled.append(number)
        raise KeyboardInterrupt

    def terminate(number: int, frame: object) -> NoReturn:
        """Clean up and exit as on Ctrl-C: something, such as a container's host, asks the process to stop."""
        handled.append(number)
        sys.exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Else it is ignored, as for `sefa ... &`.
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(reader, threading.get_ident()), name="sefa-signals", daemon=True)
    watch.start()
    try:
        yield
    except Exception:
        if not handled:
            raise
        # An interrupted library, such as torch during its import, may fail with another error.
        sys.exit(128 + handled[0])
    finally:
        signal.set_wakeup_fd(-1)
        writer.close()  # The thread then reads the end of the stream and stops.
        watch.join()
        reader.close()


def leave(code: int) -> NoReturn:
    """End the process immediately, whatever its threads are doing."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()

    flushing = threading.Thread(target=flush, daemon=True)
    flushing.start()
    flushing.join(FLUSH_S)
    os._exit(code)


def _watch(reader: socket.socket, main: int) -> None:
    """Stop the main thread's model run at the first signal, and the process at the second."""
    heard = 0
    while signals := reader.recv(64):
        for number in signals:
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            heard += 1
            if heard > 1:
                leave(128 + number)
            session = sys.modules.get("sefa_runtime.session.session")
            if session is not None:
                session.stop_run(main)
