"""What a processor that is only simulated cannot do."""

import os

import keras
import pytest

# TensorFlow asks the processor, and not oneDNN, whether it multiplies in bfloat16. Where oneDNN is
# held to older instructions than the processor has, it then ends the process.
computes_in_bfloat16 = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow" and "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="oneDNN is held to instructions without bfloat16",
)
BFLOAT16 = pytest.param("mixed_bfloat16", marks=computes_in_bfloat16)
