"""Run in an environment that has the wheel, outside the checkout: everything is in it."""

import os
from importlib.metadata import distribution, entry_points
from pathlib import Path

os.environ["KERAS_BACKEND"] = ""  # not set: this environment has one framework, JAX

import instdisc_core  # before Keras, which then runs on JAX

# isort: split
import keras
import numpy as np

from instdisc_core.page import page_file

CHECKOUT = Path(__file__).parents[2]
PACKAGES = {"instdisc_core", "instdisc_torch", "instdisc_tensorflow", "instdisc_jax"}

installed = Path(instdisc_core.__file__).parent
assert installed != CHECKOUT / "instdisc_core", f"imported from the checkout: {installed}"
files = [Path(str(file)) for file in distribution("instdisc-core").files or ()]
outside = {file.stem for file in files if file.parts[0] == ".."}
assert outside == {"instdisc"}, f"only the command is outside the packages: {outside}"
files = [file for file in files if file.parts[0] != ".."]
tops = {file.parts[0] for file in files if not file.parts[0].endswith(".dist-info")}
assert tops == PACKAGES, tops
for package in PACKAGES:
    folder = next(CHECKOUT.glob(f"{package}")) if package == "instdisc_core" else None
    folder = folder or CHECKOUT / "backends" / package
    sources = {p.relative_to(folder.parent) for p in folder.rglob("*") if p.is_file()}
    sources = {path for path in sources if "__pycache__" not in path.parts}
    wheel = {p for p in files if p.parts[0] == package and "__pycache__" not in p.parts}
    assert sources >= {Path(package, "py.typed"), Path(package, "__init__.py")}, package
    assert wheel == sources, f"in one of checkout and wheel alone; is build/ old? {wheel ^ sources}"
assert any(file.name == "LICENSE" for file in files), "no license in the wheel"
cited = f"\nversion: {instdisc_core.__version__}\n"
assert cited in (CHECKOUT / "CITATION.cff").read_text(), "CITATION.cff is of another version"

(command,) = entry_points(group="console_scripts", name="instdisc")
try:
    command.load()()
except SystemExit as stopped:  # without the extra: one sentence, and no traceback
    said = str(stopped.code)
assert said.startswith("Error: the command line needs click: pip install"), said

assert "<main" in page_file("index.html"), "the page's files are found where they are installed"

bank = instdisc_core.MemoryBank(10, 4, seed=0)
features = np.eye(4, dtype="float32")
assert keras.backend.backend() == "jax"
losses = instdisc_core.NonParametricSoftmax(0.1)(features, np.arange(4), bank)
assert losses.shape == (4,)
print(f"instdisc-core {instdisc_core.__version__}: {len(files)} files, as in the checkout")
