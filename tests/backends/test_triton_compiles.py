"""The kernels compile for GPUs of three generations, in registers and shared memory they have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

pytest.importorskip("triton", reason="PyTorch's CPU build comes without Triton")

# The least that a block may have on any of the GPUs that the kernels run on, those for games
# included; all of sm_90 have 227 KiB.
SHARED = {80: 99 * 1024, 90: 227 * 1024, 100: 99 * 1024}
SPILLED = 48  # bytes of a thread: a few numbers that it needs rarely
TENSOR_MEMORY = 512  # columns, on sm_100


def compiled_for(capability):
    """What every kernel uses; in a process without the interpreter, which replaces the compiler."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(__file__).parent / "compile_kernels.py"), str(capability)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_the_kernels_compile(capability):
    found = compiled_for(capability)
    assert {one["kernel"] for one in found} == {"attend", "scores", "combine"}
    assert {one["dtype"] for one in found} >= {"torch.float32", "torch.int8"}
    assert not [one for one in found if "error" in one]
    assert not [one for one in found if one["spilled"] > SPILLED]
    assert not [one for one in found if one["shared"] > SHARED[capability]]
    assert not [one for one in found if one["tensor_memory"] > TENSOR_MEMORY]
