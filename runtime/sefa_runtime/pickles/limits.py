"""Limits on what reading a file may cost; without them a small file can fill the memory, or take forever."""

from sefa_runtime.errors import ContentError

# Steps: one for each opcode, more for those that take longer. Checkpoints with optimizers and logs take a few hundred
# thousand.
MAX_WORK = 4_000_000
# Tensors may share storages, and small ones may be expanded.
SHARING = 2
EXPANDED_ELEMENTS = 2**20


class Limits:
    """What reading one file may still cost, shared with the pickles nested in its pickles.

    Args:
        size: Size of the file in bytes.
    """

    def __init__(self, size: int) -> None:
        self._work = MAX_WORK
        self._bytes = size
        self._elements = SHARING * size + EXPANDED_ELEMENTS

    def spend_work(self, steps: int) -> None:
        """Count steps, for opcodes or for items copied.

        Raises:
            ContentError: If there are too many.
        """
        self._work -= steps
        if self._work < 0:
            raise ContentError("damaged, or made to take for ever to read")

    def spend_bytes(self, count: int) -> None:
        """Count the bytes of storages: each byte of a file is in at most one of them.

        Raises:
            ContentError: If there are more than the file has.
        """
        if not 0 <= count <= self._bytes:
            raise ContentError("truncated, or damaged: its tensors have more bytes than the file")
        self._bytes -= count

    def spend_elements(self, count: int) -> None:
        """Count the elements of tensors and arrays, of which a stride of 0 or one byte string can make any number.

        Raises:
            ContentError: If there are far more than the file has bytes.
        """
        if not 0 <= count <= self._elements:
            raise ContentError("damaged: its tensors have more elements than the file has bytes")
        self._elements -= count
