"""Log lines that nobody waits for."""

from __future__ import annotations

import logging
import os
import select


class LossyHandler(logging.StreamHandler):
    """Leaves lines out, and says later how many, where a pipe or terminal is full because nobody
    reads it: a server that waited there would answer nobody, and hear no signal."""

    _left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            try:
                file = self.stream.fileno()
            except (AttributeError, OSError):  # not of the system's, so nothing that fills up
                super().emit(record)
                return
            if self._left_out:
                line = f"({self._left_out} lines of the log were left out){self.terminator}{line}"
            self._write(file, line.encode(errors="backslashreplace"))
            self._left_out = 0
        except BlockingIOError:
            self._left_out += 1
        except OSError:  # the reader is gone, or the disk is full
            pass
        except Exception:
            self.handleError(record)

    def _write(self, file: int, data: bytes) -> None:
        """Raises `BlockingIOError` where it would have to wait."""
        room = select.poll()
        room.register(file, select.POLLOUT)
        for start in range(0, len(data), select.PIPE_BUF):  # as much as a pipe that has room takes
            if not room.poll(0):
                raise BlockingIOError
            os.write(file, data[start : start + select.PIPE_BUF])
