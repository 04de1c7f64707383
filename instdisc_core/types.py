"""Types of the public face."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the active framework, a ``keras.Variable``, or a NumPy array.

The three frameworks share no base class, and Keras names none: so shapes and dtypes stand in the
docstrings, and a type checker takes anything.
"""
