"""Compiles the Triton kernels for a GPU that is not there, through the functions that launch them.

    python tests/backends/compile_kernels.py 90    # for sm_90

Prints a JSON object for each kernel. A stand-in driver names the GPU, so that Triton compiles, for
the arguments and the tiles of a launch, what this GPU would get; and then nothing is launched.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile

os.environ.pop("TRITON_INTERPRET", None)
os.environ["TRITON_DUMP_PTXAS_LOG"] = "1"

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
# Rows before the bank in its memory, and its width: whole tiles, and rows that no vector fits.
ATTENDED = ((0, 3), (0, 64), (1, 127), (0, 128), (0, 256), (1, 511))
GATHERED = ((1, 33), (0, 128), (0, 512))
EVERY_TILE = 90  # the generation for which all of them are compiled; for others the largest ones


class Driver:
    """Names a GPU that can be compiled for and not run on."""

    class utils:
        @staticmethod
        def get_device_properties(device):
            return {"max_shared_mem": 2**20, "multiprocessor_count": 132}

    def __init__(self, capability):
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind):
        return "int"


def recorded(function, compiled):
    """The kernel's ``run``, which compiles, appends the result to a list and launches nothing."""
    run = function.run

    def compile_only(*args, grid, warmup, **options):
        compiled.append(run(*args, grid=grid, warmup=True, **options))

    return compile_only


def problem(dtype, offset, dim):
    """Features, the parts of a bank, and indices."""
    bank = torch.zeros(100 + offset, dim, dtype=dtype)[offset:]
    scale = torch.zeros(100, 1) if dtype == torch.int8 else None
    return torch.zeros(5, dim), bank, scale, torch.zeros(5, 70, dtype=torch.int32)


def launches(kernels, tiles, capability):
    """What to call, by kernel, dtype and width; tiles of 16-bit floats are the same for both."""
    attended, gathered = ATTENDED, GATHERED
    if capability != EVERY_TILE:
        attended, gathered = ATTENDED[-3:], GATHERED[-1:]
    for dtype in DTYPES:
        few = dtype == torch.float16
        for offset, dim in attended[:1] if few else attended:
            if tiles.has_attention(dim, dtype):
                f, bank, scale, _ = problem(dtype, offset, dim)
                yield (
                    "attend",
                    dtype,
                    dim,
                    lambda f=f, b=bank, s=scale: kernels.attend(f, b, s, 0.1),
                )
        for offset, dim in gathered[-1:] if few else gathered:
            f, bank, scale, at = problem(dtype, offset, dim)
            given = (bank, scale, at)
            yield "scores", dtype, dim, lambda f=f, given=given: kernels.scores(f, *given)
            weights = torch.zeros(at.shape)
            yield "combine", dtype, dim, lambda w=weights, given=given: kernels.combine(w, *given)


def usage(launch, compiled):
    """What the kernel of a launch uses, or why it does not compile."""
    compiled.clear()
    log = io.StringIO()
    try:
        with contextlib.redirect_stdout(log):
            launch()
    except Exception as error:
        while cause := error.__cause__ or error.__context__:
            error = cause
        return {"error": f"{type(error).__name__}: {error}"}
    (kernel,) = compiled
    registers, spilled = (
        int(re.search(pattern, log.getvalue())[1])
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
    )
    return {
        "registers": registers,
        "spilled": spilled,
        "shared": kernel.metadata.shared,
        "tensor_memory": getattr(kernel.metadata, "tmem_size", None) or 0,
    }


def main():
    """Compile everything for the GPU named on the command line."""
    capability = int(sys.argv[1])
    driver.set_active(Driver(capability))
    from instdisc_torch import kernels, tiles

    kernels._is_hopper = lambda tensor: capability // 10 == 9
    compiled = []
    for name in ("_attend", "_scores", "_combine"):
        function = getattr(kernels, name)
        function.run = recorded(function, compiled)
    for name, dtype, dim, launch in launches(kernels, tiles, capability):
        found = usage(launch, compiled)
        print(json.dumps({"kernel": name, "dtype": str(dtype), "dim": dim, **found}), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        main()
