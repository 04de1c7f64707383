"""Starts ranks as processes of their own, and waits for them no longer than it must."""

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def start(ranks, script, *arguments, seconds=240):
    """Run a script of this folder on so many ranks, as torchrun does; raise if a rank fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = HERE.parent.parent
    path = [*filter(None, [os.environ.get("PYTHONPATH")]), str(HERE), str(HERE.parent)]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
    running = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), *map(str, arguments)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    failed = [i for i, process in enumerate(running) if process.returncode]
    assert not failed, "\n".join(f"rank {i}:\n{said[i][-3000:]}" for i in failed)
    return said
