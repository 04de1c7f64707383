"""Whether the packages that an export needs are there, before it computes anything."""

from importlib.util import find_spec


def require_packages(*modules: str, extra: str) -> None:
    """Raise unless all modules can be imported.

    Args:
        modules: their names.
        extra: of this project, which installs them.

    Raises:
        ImportError: some are missing; it names them and the extra.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ImportError(
            f"{', '.join(missing)} {verb} not installed: pip install 'instdisc-core[{extra}]'."
        )
