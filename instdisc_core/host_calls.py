"""Calls from a step to functions of NumPy arrays, and arrays that go to the device."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from instdisc_core.types import Tensor


class HostCalls:
    """How a framework calls the host; ``BankOps`` inherits it, and a backend may override it.

    These bodies are for operations that run when they are called. A framework that records a step
    and compiles it overrides ``is_compiling`` and ``on_host``.
    """

    calls_host_from_xla = True
    """Whether steps that XLA compiles can call the host."""

    def is_compiling(self) -> bool:
        """Whether the operations that run now are only recorded, for a step that is compiled."""
        return False

    def on_host(
        self, function: Callable, results: Sequence[tuple[tuple, str]], *tensors: Tensor
    ) -> list[Tensor]:
        """Call a NumPy function of the values of tensors, in the order of the step.

        Args:
            function: from arrays to a sequence of new arrays, one for each of ``results``.
            results: shape and dtype of each array that it returns.
            tensors: its arguments.

        Returns:
            What the function returns, as tensors.

        Raises:
            RuntimeError: in a step that is compiled, with operations that know no compiled calls.

        Example:
        ```python
        (doubled,) = BankOps().on_host(lambda x: [2 * x], [((3,), "float32")], keras.ops.ones(3))
        ```
        """
        try:
            values = [ops.convert_to_numpy(tensor) for tensor in tensors]
        except Exception as error:  # each compiler raises another one
            raise RuntimeError(
                "Received: rows in the host's memory, in a step that is compiled, with the "
                f"operations {type(self).__name__}. Expected a step that runs eagerly, "
                "compile(run_eagerly=True), or the framework's own backend, which calls the host "
                "from compiled steps."
            ) from error
        arrays = function(*values)
        return [self.from_host(array) for array in arrays] if results else []

    def settle(self) -> None:
        """Wait until the calls of the host in steps that still run are done."""

    def from_host(self, array: np.ndarray) -> Tensor:
        """A tensor on the device with the values that an array has now, in the array's dtype.

        The array may change once the operations that were called before are done.

        Args:
            array: of any shape.

        Returns:
            A tensor of its shape.

        Example: ``BankOps().from_host(np.zeros((2, 3), "int8"))``
        """
        return ops.convert_to_tensor(array, dtype=keras.backend.standardize_dtype(array.dtype))
