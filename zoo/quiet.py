"""Keeping libraries' chatter off the terminal, C++ lines included, unless something goes wrong."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

_depth = 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Collect what is written to stdout, stderr and warnings; show it only if the block raises."""
    global _depth
    if _depth or threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    _depth += 1
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, _ in kept:
            os.dup2(sink.fileno(), number)
        try:
            yield
        except BaseException:
            sink.seek(0)
            os.write(kept[1][1], sink.read()[-4000:])
            raise
        finally:
            _depth -= 1
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
