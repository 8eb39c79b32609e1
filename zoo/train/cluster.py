"""A cluster of processes on one machine: what ``zoo train --local-workers N`` starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from zoo.errors import FAILURE

#: Seconds that the other workers have to notice that one is gone, before they are stopped.
PATIENCE = 45.0
#: Exit codes of a worker that was stopped by a signal and wrote a checkpoint.
STOPPED = (130, 143)


def run_local(words: Sequence[str], workers: int, say: Callable[[str], None]) -> int:
    """Run the command ``words``, less ``--local-workers``, as a cluster; the chief's exit code.

    The chief (worker 0) speaks to the terminal; what another one says is shown when it fails. When
    one ends before its time, the others are ended. Signals are passed on to all.
    """
    own = [*_without(words, "--local-workers"), "--strategy", "multiworker"]
    if "--resume" in words or any(word.startswith("--resume=") for word in words):
        own = own[:-2]  # a run knows its strategy
    hosts = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(f"{folder}/{k}", "w+b")) for k in range(workers)]
        for rank in range(workers):
            config = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": rank}}
            quiet: dict[str, Any] = (
                {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": files[rank]}
            )
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "zoo.cli", *own],
                    env={**os.environ, "TF_CONFIG": json.dumps(config)},
                    start_new_session=True,  # Ctrl-C comes from us alone, and once
                    **quiet,
                )
            )
        code = _wait(started, say)
        for rank in range(1, workers):
            if started[rank].returncode not in (0, *STOPPED):
                files[rank].seek(0)
                text = files[rank].read()[-1000:].decode(errors="replace").strip()
                say(f"worker {rank} said: {text or 'nothing'}")
    return code


def _wait(started: list[subprocess.Popen[bytes]], say: Callable[[str], None]) -> int:
    """Wait for all; the exit code is the chief's, or that of the first to fail."""
    first: int | None = None
    deadline = float("inf")
    try:
        while any(process.poll() is None for process in started):
            failed = [k for k, process in enumerate(started) if process.poll()]
            if failed and first is None:
                first, deadline = failed[0], time.monotonic() + PATIENCE
                code = started[first].returncode
                if code not in STOPPED:
                    say(f"worker {first} ended with exit code {code}; waiting for the others")
            if time.monotonic() > deadline:
                for process in started:
                    process.terminate()
                deadline = time.monotonic() + PATIENCE
            time.sleep(0.1)
    except KeyboardInterrupt as error:  # SIGTERM comes as a kind of it: see zoo.cli
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait()
        return 128 + (signal.SIGINT if type(error) is KeyboardInterrupt else signal.SIGTERM)
    codes = [started[0].returncode, *(process.returncode for process in started[1:])]
    code = next((found for found in codes if found), 0)
    return FAILURE if code < 0 else code


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


def _without(words: Sequence[str], option: str) -> list[str]:
    """Words without an option and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
