"""A Keras model whose files are complete: replaced at once, verified, with random states."""

import copy
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from instdisc_core.checkpoints import check_seal, seal
from instdisc_core.files import replacing
from instdisc_core.host_rows import HostRows
from instdisc_core.registry import get_bank_ops
from instdisc_core.validation import require

# What zipfile raises for a damaged archive; RuntimeError if a part seems to be encrypted.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)

FURTHER = "further_"  # what the names of further arrays begin with in a file


class PersistentModel(keras.Model):
    """What saving and loading add to ``keras.Model``.

    - The states of random generators are saved, which Keras leaves out.
    - A file is written under another name and then replaces the old one at once, so that a full
      disk or a killed process leaves the old one unchanged.
    - A file of weights ends with a digest of its bytes, which is verified before anything is read.
      The checksums in a ``.keras`` file are verified too. Keras alone reads the weights even if
      they are wrong.
    - Weights that do not fit leave the model unchanged.

    Attributes:
        parts: names of the attributes that hold the parts of the model; a subclass sets it.
    """

    parts: tuple[str, ...] = ()

    def random_states(self) -> Iterator[tuple[str, keras.Variable]]:
        """Name and variable of the state of every random generator, part by part."""
        for part in self.parts:
            layer = getattr(self, part)
            if layer is not None:
                saved = {id(weight) for weight in layer.weights}
                states = [v for v in layer.variables if id(v) not in saved]
                yield from ((f"random_state_{part}_{i}", v) for i, v in enumerate(states))

    def further_arrays(self) -> dict[str, np.ndarray]:
        """What a subclass saves next to its variables and random states: arrays by name."""
        return {}

    def take_further_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take over what ``further_arrays`` returned; names may be missing from a file."""

    @contextmanager
    def preserved_random_states(self) -> Iterator[None]:
        """Restore the state of every random generator when the ``with`` block ends."""
        states = [(state, state.numpy()) for _, state in self.random_states()]
        try:
            yield
        finally:
            for state, value in states:
                state.assign(value)

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Save the states of all random generators too, which Keras leaves out."""
        super().save_own_variables(store)
        for name, state in self.random_states():
            store[name] = state.numpy()
        for name, array in self.further_arrays().items():
            store[f"{FURTHER}{name}"] = array

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Restore what ``save_own_variables`` saved; a generator that is new keeps its state.

        Raises:
            ValueError: the weights are in a ``.keras`` file that is damaged.
        """
        archive = getattr(store, "archive", None)
        if archive is not None:
            _check_archive(archive)
        names = set(store.keys())
        for name, state in self.random_states():
            if name in names:
                state.assign(store[name])
        self.take_further_arrays(
            {n.removeprefix(FURTHER): np.asarray(store[n]) for n in names if n.startswith(FURTHER)}
        )
        own = {n: store[n] for n in names if not n.startswith(("random_state", FURTHER))}
        super().load_own_variables(own)

    def save(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the whole model; see ``keras.Model.save``. A ``.keras`` file is replaced at once."""
        pickled = pickled_modules(self)
        if pickled:
            warnings.warn(
                f"{', '.join(pickled)}: a torch.nn.Module is saved as a pickle, so this file loads "
                "only with keras.saving.load_model(path, safe_mode=False). A file of save_weights "
                "holds no pickle.",
                stacklevel=2,
            )
        if not _is_new_file(filepath, ".keras", overwrite) or zipped is False:
            return super().save(filepath, overwrite, zipped, **kwargs)
        with replacing(filepath) as part:
            return super().save(part, True, zipped, **kwargs)

    def save_weights(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        max_shard_size: float | None = None,
    ) -> None:
        """Save the weights with a digest; see ``keras.Model.save_weights``.

        Raises:
            ValueError: ``max_shard_size`` is given.
        """
        require(
            max_shard_size is None,
            f"max_shard_size={max_shard_size}",
            "one file, whose digest covers everything",
            "Leave max_shard_size out.",
        )
        if not _is_new_file(filepath, ".weights.h5", overwrite):
            return super().save_weights(filepath, overwrite)
        with replacing(filepath) as part:
            super().save_weights(part)
            seal(part)

    def load_weights(
        self, filepath: str | os.PathLike, skip_mismatch: bool = False, **kwargs: Any
    ) -> None:
        """Load weights; see ``keras.Model.load_weights``.

        Raises:
            ValueError: the file is damaged, or its weights do not fit. The model is unchanged, but
                for rows outside the device, which cannot be read then until weights are loaded.
        """
        if str(filepath).endswith(".weights.h5"):
            check_seal(filepath)
        if str(filepath).endswith(".keras"):
            _check_file(filepath)
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and self.built and not optimizer.built:
            optimizer.build(self.trainable_variables)  # else Keras would leave its state out
        variables = [*self.variables, *(optimizer.variables if optimizer is not None else ())]
        bank_ops = get_bank_ops()  # which reads and writes what several devices divide
        before = [(variable, bank_ops.dump(variable)) for variable in variables]
        modules = [layer.module for layer in self._flatten_layers() if _holds_torch_module(layer)]
        states = [copy.deepcopy(module.state_dict()) for module in modules]  # with their buffers
        tables = [getattr(layer, "rows", None) for layer in self._flatten_layers()]
        host_rows = [(rows, rows.loads) for rows in tables if isinstance(rows, HostRows)]
        try:
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
        except Exception:
            for variable, value in before:
                bank_ops.load(variable, value)
            for module, state in zip(modules, states, strict=True):
                module.load_state_dict(state)
            for rows, loads in host_rows:
                rows.invalidate_unless(rows.loads == loads)
            raise

    def get_compile_config(self) -> dict[str, Any]:
        """How the model was compiled, in terms that every Keras backend can load.

        Keras names the optimizer by its class on the active backend, and stores what
        ``jit_compile="auto"`` means there. Neither can be loaded on another.
        """
        config = _portable(super().get_compile_config())
        return {**config, "jit_compile": "auto"} if config else config


def _portable(config: Any) -> Any:
    """A configuration in which every optimizer, also one inside another, is any backend's."""
    if not isinstance(config, dict):
        return config
    config = {key: _portable(value) for key, value in config.items()}
    if str(config.get("module")).startswith("keras.src.backend"):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config


def _check_file(path: str | os.PathLike) -> None:
    """Raise unless this is a ZIP archive whose checksums hold."""
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                _check_archive(archive)
        except ZIP_ERRORS as error:
            raise ValueError(
                f"Received: {path}, which is damaged ({error}). Expected a file that save wrote. "
                "Take another copy."
            ) from error


def _check_archive(archive: zipfile.ZipFile) -> None:
    """Raise unless the checksums of all parts of a ZIP archive hold."""
    damaged = archive.testzip()
    require(
        damaged is None,
        f"{archive.filename}, whose part {damaged} is damaged",
        "an undamaged file",
        "Take another copy.",
    )


def pickled_modules(model: keras.Model) -> list[str]:
    """The names of the layers of a model that are a ``torch.nn.Module`` that a file pickles."""
    return [layer.name for layer in model._flatten_layers() if _is_pickled(layer)]


def _holds_torch_module(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.TorchModuleWrapper)


def _is_pickled(layer: keras.Layer) -> bool:
    """Whether its configuration is a pickle of its module, as it is unless its class says not."""
    return _holds_torch_module(layer) and getattr(layer, "pickles_module", True)


def _is_new_file(filepath: str | os.PathLike, suffix: str, overwrite: bool) -> bool:
    """Whether this is a local file of that kind, and may be replaced without asking."""
    path = str(filepath)
    return path.endswith(suffix) and "://" not in path and (overwrite or not Path(path).exists())
