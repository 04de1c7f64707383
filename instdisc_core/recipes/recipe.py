"""A recipe: the settings of a training, the model that they give, and the training itself."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import keras

from instdisc_core.callbacks import LogFile
from instdisc_core.checkpoints import CheckpointFolder, Checkpoints
from instdisc_core.communicator import writes_files
from instdisc_core.data import ImageSource, SlidingWindow
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import PRETRAINED, UNTRAINED, Matching, judged
from instdisc_core.recipes.building import build_model, build_optimizer
from instdisc_core.recipes.run_folder import run_folder
from instdisc_core.recipes.settings import Settings
from instdisc_core.validation import require, require_count


@dataclass(frozen=True)
class Recipe(Settings):
    """All settings of a training, and the training itself.

    Its attributes are those of ``recipes.settings.Settings``. Change one with
    ``dataclasses.replace(recipe, epochs=10)`` or ``recipes.get(name, epochs=10)``.

    Example:
    ```python
    recipe = recipes.Recipe("mine", "experience", epochs=20, milestones=(12, 16))
    print(recipe)
    ```
    """

    def with_augmentation(self, **settings: Any) -> "Recipe":
        """The recipe with these arguments for its augmentation, and its others as they are.

        Example: ``recipe = recipes.get("small-cifar10").with_augmentation(flip=False)``
        """
        changed = dict(self.augmentation_settings) | settings
        return dataclasses.replace(self, augmentation_settings=tuple(changed.items()))

    def build(
        self,
        num_instances: int,
        steps_per_epoch: int | None = None,
        seed: int | None = None,
        jit_compile: bool | Literal["auto"] = "auto",
        sharded: bool = False,
    ) -> EmbeddingModel:
        """The model of this recipe, compiled.

        Args:
            num_instances: number of training images.
            steps_per_epoch: batches in an epoch, for the learning rate; None is as many as
                ``train`` takes.
            seed: of the weights, the bank, the augmentation and the negatives. It is also set as
                Keras's global seed.
            jit_compile: of ``compile``. ``"auto"`` compiles by XLA on JAX, and on TensorFlow with
                a GPU; a large network takes about a minute. It does not compile on PyTorch, whose
                compiler fails on a step of Keras (2.13).
            sharded: see ``InstanceDiscrimination``.

        Returns:
            An InstanceDiscrimination, an NNCLR or a PIC, for images of pixels in ``[0, 255]``,
            uint8 or float.

        Example: ``model = recipes.get("small-cifar10", width=4).build(50_000, seed=0)``
        """
        require_count("num_instances", num_instances)
        if seed is not None:
            keras.utils.set_random_seed(seed)
        full = num_instances // self.batch_size if self.drop_remainder else 0
        steps = steps_per_epoch or full or math.ceil(num_instances / self.batch_size)
        model = build_model(self, num_instances, seed, sharded)
        model.build((None, self.image_size, self.image_size, 3))
        model.compile(optimizer=build_optimizer(self, steps, model), jit_compile=jit_compile)
        return model

    def train(
        self,
        source: ImageSource,
        output: str | Path | None = None,
        seed: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        epochs: int | None = None,
        verbose: Literal["auto", 0, 1, 2] = "auto",
        jit_compile: bool | Literal["auto"] = "auto",
        on_device: bool = False,
        save_freq: int | Literal["epoch"] = "epoch",
        judge: bool = True,
        sharded: bool = False,
    ) -> EmbeddingModel:
        """Print the recipe, train on the images, say what it was worth, and keep the run.

        The closing table says without labels whether the embedding is better than raw pixels and
        than the encoder before training; see ``evaluation.verdict``.

        Args:
            source: an ``instdisc_core.data.ImageSource``.
            output: folder to write to: ``recipe.json``, ``log.csv``, ``checkpoints``, and at the
                end ``model.keras`` and the verdict (``verdict.txt``, ``.csv``, ``.json``). A run
                that was killed continues from these when it is started again, and ends with the
                same result as without the interruption. Only one process at a time can use the
                folder. None writes nothing.
            seed: of everything that is drawn.
            callbacks: further Keras callbacks.
            epochs: stop after this many; the learning rate still follows ``self.epochs``.
            verbose: of ``fit``; 0 prints nothing.
            jit_compile: see ``build``.
            on_device: see ``data.ImageBatches``.
            save_freq: see ``Checkpoints``.
            judge: whether to close with the verdict, if it is printed or written. Without Pillow
                it is left out, with a warning.
            sharded: of several ranks, each stores a part of the memory bank's rows. The first one
                prints, judges and writes.

        Returns:
            The trained model. ``model.history.history`` has the losses of the epochs that this
            call ran, ``log.csv`` those of all epochs.

        Raises:
            ValueError: images of another size than the recipe's, or ``output`` holds a run of
                another recipe, seed or data set, or is in use.

        Example:
        ```python
        recipe = recipes.get("small-cifar10", width=4, dtype_policy="float32", epochs=1)
        model = recipe.train(data.ImageFolder("photos", 32), "runs/photos")
        ```
        """
        side = self.image_size
        require(
            source.size == (side, side),
            f"images of {source.size[0]} x {source.size[1]} pixels",
            f"{side} x {side}, the image_size of the recipe",
            f"Read them with size={side}, or change the recipe's image_size and crop_size.",
        )
        batches = source.batches(
            self.batch_size,
            seed,
            drop_remainder=self.drop_remainder,
            on_device=on_device,
            sliding_window=SlidingWindow(*self.sliding_window) if self.sliding_window else None,
        )
        folder = None if output is None else Path(output)
        recipe = self if folder is None else self._without_lost_file(folder)
        model = recipe.build(len(source), len(batches), seed, jit_compile, sharded)
        first = writes_files(model)
        verbose = verbose if first else 0
        if verbose:
            print(self)
        own = folder if first else None  # to write to
        with run_folder(own, self, seed, source.manifest) if own else nullcontext():
            tasks = _tasks(source) if judge and first and (verbose or folder) else None
            before = tasks.of_model(model) if tasks and recipe is self else None
            kept = _kept(folder, save_freq) if folder else []
            model.fit(
                batches,
                epochs=self.epochs if epochs is None else epochs,
                callbacks=[*callbacks, *kept],
                verbose=verbose,
            )
            if tasks:  # before the model is there: a run that has one is over
                found = judged(tasks, model, before, PRETRAINED if self.weights else UNTRAINED)
                if verbose:
                    print(found)
                if folder:
                    found.report().save(folder, "verdict")
            if own:
                model.save(own / "model.keras")
            elif folder:
                model.help_to_save()
        return model

    def _without_lost_file(self, folder: Path) -> "Recipe":
        """This recipe; without the file of weights, if a run that continues needs it no more."""
        saved = CheckpointFolder(folder / "checkpoints", 1).paths()
        lost = self.weights is not None and not Path(self.weights).is_file()
        return dataclasses.replace(self, weights=None) if lost and saved else self


def _tasks(source: ImageSource) -> Matching | None:
    """What the verdict compares features on; None, with a warning, where Pillow is missing."""
    if find_spec("PIL") is None:
        warnings.warn(
            "The verdict is left out, because Pillow is not installed: pip install pillow, or set "
            "judge=False.",
            stacklevel=3,
        )
        return None
    return Matching(source)


def _kept(folder: Path, save_freq: int | Literal["epoch"]) -> list[keras.callbacks.Callback]:
    """The callbacks that write to the folder of a run."""
    return [LogFile(folder / "log.csv"), Checkpoints(folder / "checkpoints", save_freq)]
