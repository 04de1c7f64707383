"""What loading a file came to: rejected, equal, wrong, or a crash; and whether it ran anything."""

import re
import resource
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

MEMORY = 2**31  # bytes of address space that loading a small file may take
INTERNAL = (  # what code raises that did not expect what it read
    AssertionError,
    AttributeError,
    IndexError,
    LookupError,
    MemoryError,
    NameError,
    RecursionError,
    StopIteration,
    SystemError,
    TypeError,
    ZeroDivisionError,
    struct.error,
)
WORDS = 3  # that a message needs at least to name a cause
KERAS = re.compile("[Cc]ould not (locate|be deserialized)")  # its TypeError for what it rejects
EVENTS = {
    "exec",
    "marshal.loads",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pickle.find_class",
    "pty.spawn",
    "subprocess.Popen",
}  # of Python's audit: code that runs, and processes that start


class Loader(Protocol):
    """A way of reading files.

    Attributes:
        name: for the tables.
        files: the undamaged files, by name.
        targets: those that are damaged, one at a time.
        content: what ``load`` returns of undamaged files.
        names_files: whether an error must say which file it is about; Keras's own do not.
        may_differ: whether other content of the same form is no fault, as for the pixels of an
            image without a manifest.
    """

    name: str
    files: dict[str, bytes]
    targets: tuple[str, ...]
    content: object
    names_files: bool
    may_differ: bool

    def load(self, folder: Path) -> object:
        """Read the files in a folder; the result can be compared with ``==``."""


class Verdict(NamedTuple):
    """What a loader did with a file.

    Attributes:
        kind: ``"rejected"``: an exception that says what is wrong. ``"equal"``: loaded, and the
            content is what was written. ``"decoded"``: other pixels, of the right shape.
            ``"wrong"``: loaded with other content. ``"crash"``: an exception without a cause.
        detail: the exception.
        executions: what ran meanwhile, of ``EVENTS``.
    """

    kind: str
    detail: str
    executions: list[str]


def judge(loader: Loader, folder: Path, changed: str) -> Verdict:
    """Load the files in a folder, of which one was changed."""
    with _watched() as ran, _bounded():
        try:
            found, raised = loader.load(folder), None
        except Exception as error:
            found, raised = None, error
    if raised is not None:
        said = f"{type(raised).__name__}: {raised}"
        names = (changed, str(folder)) if loader.names_files else ()
        return Verdict("rejected" if _is_named(raised, names) else "crash", said[:500], ran)
    if found == loader.content:
        return Verdict("equal", "", ran)
    return Verdict("decoded" if loader.may_differ else "wrong", "", ran)


def _is_named(error, names):
    """Whether an exception says what is wrong, and about which of these."""
    said = str(error)
    spoken = KERAS.search(said) or (isinstance(error, KeyError) and len(said.split()) > WORDS)
    internal = isinstance(error, INTERNAL) and not spoken
    about = not names or any(name in said for name in names)
    return not internal and len(said.split()) >= WORDS and about


@contextmanager
def _bounded() -> Iterator[None]:
    """Let allocations fail that no small file can be worth."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, limits[1]))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


_running: list[list[str]] = []  # an audit hook stays for ever: it writes into the last of these


@contextmanager
def _watched() -> Iterator[list[str]]:
    """A list to which everything is added that runs in this block, imports excepted."""
    if not hasattr(sys, "_instdisc_faults_watched"):
        sys.addaudithook(_hook)
        sys._instdisc_faults_watched = True  # type: ignore[attr-defined]
    ran: list[str] = []
    _running.append(ran)
    try:
        yield ran
    finally:
        _running.pop()


def _hook(event, args):
    if _running and event in EVENTS and not _imports():
        _running[-1].append(f"{event} {str(args[0])[:80] if args else ''}")


def _imports():
    """Whether Python's import is at work: it compiles and runs modules that are installed."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
