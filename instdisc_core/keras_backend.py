"""Chooses the framework that Keras runs on, before Keras is imported for the first time.

Keras reads its backend once, when it is imported. It takes TensorFlow if nothing names another.
This module is therefore imported before Keras, and imports the standard library only.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

FRAMEWORKS = ("torch", "tensorflow", "jax")
WITHOUT_TRAINING = ("numpy", "openvino")  # Keras's other backends; they can predict and search
DEFAULT = "tensorflow"
_NICKNAMES = {"pytorch": "torch", "tf": "tensorflow"}


def choose() -> None:
    """Check the backend that is asked for, or set ``KERAS_BACKEND`` to the only one installed.

    If ``KERAS_BACKEND`` is set, it decides. Else the user's ``keras.json`` does, if it names a
    framework that is installed. Else the one framework that is installed is taken. If Keras is
    imported already, its backend is fixed and nothing is done.

    Raises:
        ValueError: ``KERAS_BACKEND`` is not the name of a backend.
        ImportError: the framework that is asked for is not installed, or none is, or several are
            and nothing says which to take, or an earlier import of Keras failed in this process.
    """
    if "keras" in sys.modules:
        return
    installed = [name for name in FRAMEWORKS if _is_installed(name)]
    asked = os.environ.get("KERAS_BACKEND")
    if asked:
        _check(asked, installed)
    failed_before = any(name.startswith("keras.") for name in sys.modules)
    if failed_before:
        raise ImportError(
            "Received: an earlier import of keras in this process, which failed. Expected "
            "instdisc_core, or KERAS_BACKEND, to come first: Keras reads its backend only once. "
            f"Start Python again with {_setting(asked, installed)}."
        )
    if asked:
        return
    configured = _configured()
    if configured in (*installed, *WITHOUT_TRAINING):
        return
    if len(installed) == 1:
        os.environ["KERAS_BACKEND"] = installed[0]
        return
    if not installed:
        raise ImportError(
            f"Received: none of {', '.join(FRAMEWORKS)} is installed. Expected one of them. "
            f"Install one: {', or '.join(f'pip install {name}' for name in FRAMEWORKS)}."
        )
    raise ImportError(
        f"Received: no KERAS_BACKEND, while {' and '.join(installed)} are installed and "
        f"{configured}, which Keras would take, is not. Expected KERAS_BACKEND to name one. "
        f"Set {_setting(None, installed)}."
    )


def _check(asked: str, installed: list[str]) -> None:
    """Raise unless this is a backend whose framework is installed."""
    if asked not in (*FRAMEWORKS, *WITHOUT_TRAINING):
        known = _NICKNAMES.get(asked.lower(), asked.lower())
        meant = [known] if known in FRAMEWORKS else installed
        raise ValueError(
            f"Received: KERAS_BACKEND={asked!r}. Expected one of "
            f"{', '.join(map(repr, FRAMEWORKS))}. Set {_setting(None, meant)}."
        )
    if asked in FRAMEWORKS and asked not in installed:
        other = f", or set {_setting(None, installed)}" if installed else ""
        raise ImportError(
            f"Received: KERAS_BACKEND={asked!r}, but {asked} is not installed. Expected an "
            f"installed framework. Install it: pip install {asked}{other}."
        )


def _setting(asked: str | None, installed: list[str]) -> str:
    """What to set before Python starts."""
    names: Sequence[str] = [asked] if asked else installed or FRAMEWORKS
    return f"{' or '.join(f'KERAS_BACKEND={name}' for name in names)} in the environment"


def _is_installed(name: str) -> bool:
    """Whether there is such a package. An empty folder, which pip may leave behind, is not one."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _configured() -> str:
    """The backend that Keras takes if ``KERAS_BACKEND`` is not set."""
    home = os.path.expanduser("~")
    home = home if os.access(home, os.W_OK) else "/tmp"
    folder = os.environ.get("KERAS_HOME", os.path.join(home, ".keras"))
    try:
        return json.loads(Path(folder, "keras.json").read_text()).get("backend", DEFAULT)
    except (OSError, ValueError, AttributeError):  # no such file, or not Keras's
        return DEFAULT


choose()
