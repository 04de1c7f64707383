"""All settings of a training, and the training itself."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras

from instdisc_core import objectives
from instdisc_core.augmentation import paper_augmentation, simclr_augmentation
from instdisc_core.callbacks import LogFile
from instdisc_core.checkpoints import Checkpoints, FolderLock
from instdisc_core.encoders import resnet
from instdisc_core.files import remove_parts, replacing
from instdisc_core.model import InstanceDiscrimination
from instdisc_core.recipes.schedule import Schedule
from instdisc_core.validation import require, require_count


@dataclass(frozen=True)
class Recipe:
    """All settings of a training, from the augmentation to the learning rate.

    Change one with ``dataclasses.replace(recipe, epochs=10)`` or ``get(name, epochs=10)``.

    Attributes:
        name: of the recipe.
        source: where its settings come from.
        deviations: what differs from there, a tuple of sentences.
        image_size: pixels of a side to which a source should bring images.
        crop_size: pixels of a side that the encoder sees in training.
        augmentation: ``"paper"`` or ``"simclr"``; see ``instdisc_core.augmentation``.
        augmentation_settings: pairs of further arguments for it.
        depth, stem, width: of the residual network; see ``encoders.resnet``.
        embedding_dim: ``d``.
        objective: a name that ``objectives.get`` knows.
        temperature: ``tau``.
        objective_settings: pairs of further arguments for it.
        momentum: of the memory bank.
        batch_size, epochs: of the training.
        optimizer: ``"sgd"`` or ``"adamw"``.
        optimizer_momentum: of SGD.
        learning_rate: at its highest.
        weight_decay: for SGD the factor of an L2 term as PyTorch's SGD has it; for AdamW the
            decoupled one.
        warmup_epochs: in which the learning rate rises linearly from 0.
        milestones: epochs at which it is divided by 10; with none it falls to 0 along a cosine.
        num_neighbors, knn_temperature: of the classifier that judges the embedding.
        dtype_policy: Keras's; the bank, scores and losses are float32 in any.
    """

    name: str
    source: str
    deviations: tuple = ()
    image_size: int = 32
    crop_size: int = 32
    augmentation: str = "paper"
    augmentation_settings: tuple = ()
    depth: int = 18
    stem: str = "cifar"
    width: int = 64
    embedding_dim: int = 128
    objective: str = "non_parametric_softmax"
    temperature: float = 0.1
    objective_settings: tuple = ()
    momentum: float = 0.5
    batch_size: int = 128
    epochs: int = 200
    optimizer: str = "sgd"
    optimizer_momentum: float = 0.9
    learning_rate: float = 0.03
    weight_decay: float = 5e-4
    warmup_epochs: int = 0
    milestones: tuple = (120, 160)
    num_neighbors: int = 200
    knn_temperature: float = 0.1
    dtype_policy: str = "float32"

    def build(self, num_instances, steps_per_epoch=None, seed=None, jit_compile="auto"):
        """The model of this recipe, compiled.

        Args:
            num_instances: number of training images.
            steps_per_epoch: batches an epoch, for the schedule; None counts the last one that is
                not full.
            seed: of the weights, the bank, the augmentation and the negatives. It is set as
                Keras's global one too.
            jit_compile: of ``compile``. ``"auto"`` does not compile on PyTorch; on a GPU that is
                worth its minute.

        Returns:
            An InstanceDiscrimination for images of pixels in ``[0, 255]``, uint8 or float.

        Example: ``model = get("paper-cifar10").build(50_000, seed=0)``
        """
        require_count("num_instances", num_instances)
        if seed is not None:
            keras.utils.set_random_seed(seed)
        steps = steps_per_epoch or math.ceil(num_instances / self.batch_size)
        optimizer = self.build_optimizer(steps)
        objective, augmenter = self.build_objective(seed), self.build_augmenter(seed)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.dtype_policy)
        try:
            model = InstanceDiscrimination(
                resnet(self.depth, stem=self.stem, width=self.width, include_preprocessing=True),
                num_instances,
                self.embedding_dim,
                objective,
                self.momentum,
                augmenter=augmenter,
                seed=seed,
            )
        finally:
            keras.config.set_dtype_policy(before)
        model.compile(optimizer=optimizer, jit_compile=jit_compile)
        model.build((None, self.image_size, self.image_size, 3))
        return model

    def build_objective(self, seed=None):
        """The objective."""
        settings = dict(self.objective_settings)
        return objectives.get(self.objective, seed, temperature=self.temperature, **settings)

    def build_augmenter(self, seed=None):
        """The augmentation, for pixels in ``[0, 255]``."""
        kinds: dict[str, Callable] = {"paper": paper_augmentation, "simclr": simclr_augmentation}
        require(
            self.augmentation in kinds,
            f"augmentation={self.augmentation!r}",
            f"one of {', '.join(map(repr, kinds))}",
        )
        build = kinds[self.augmentation]
        return build(self.crop_size, seed=seed, **dict(self.augmentation_settings))

    def build_optimizer(self, steps_per_epoch):
        """The optimizer, whose learning rate follows the schedule."""
        schedule = Schedule(
            self.learning_rate,
            max(1, self.epochs * steps_per_epoch),
            self.warmup_epochs * steps_per_epoch,
            [epoch * steps_per_epoch for epoch in self.milestones],
        )
        if self.optimizer == "adamw":
            return keras.optimizers.AdamW(schedule, weight_decay=self.weight_decay)
        require(self.optimizer == "sgd", f"optimizer={self.optimizer!r}", "'sgd' or 'adamw'")
        # Keras takes the decay off the weights themselves; in PyTorch it goes through the momentum,
        # which adds up to 1 / (1 - momentum) times as much.
        decay = self.weight_decay / (1 - self.optimizer_momentum)
        return keras.optimizers.SGD(schedule, self.optimizer_momentum, weight_decay=decay)

    def train(
        self,
        source,
        output=None,
        seed=0,
        callbacks=(),
        epochs=None,
        verbose="auto",
        jit_compile="auto",
        on_device=False,
        save_freq: int | Literal["epoch"] = "epoch",
    ):
        """Print the recipe, train on the images, and keep what the run needs to be resumed.

        Args:
            source: an ``instdisc_core.data.ImageSource``.
            output: folder to write to: ``recipe.json``, ``log.csv``, ``model.keras`` at the end,
                and ``checkpoints``, from which a run that was killed continues when it is started
                again, and ends as if it had not been. One process at a time. None writes nothing.
            seed: of everything that is drawn.
            callbacks: further Keras callbacks.
            epochs: stop after this many; the schedule stays that of ``self.epochs``.
            verbose: of ``fit``; 0 prints nothing.
            jit_compile: see ``build``.
            on_device: see ``data.ImageBatches``.
            save_freq: see ``Checkpoints``.

        Returns:
            The trained model. The losses of the epochs that this call ran are in
            ``model.history.history``, those of all in ``log.csv``.

        Raises:
            ValueError: images of another size than the recipe's, or ``output`` holds a run of
                another recipe, seed or data set, or is in use.

        Example:
        ```python
        model = recipes.get("modern-cifar10").train(ImageFolder("photos", 32), "runs/photos")
        ```
        """
        side = self.image_size
        require(
            source.size == (side, side),
            f"images of {source.size[0]} x {source.size[1]} pixels",
            f"{side} x {side}, the image_size of the recipe",
            f"Read them with size={side}, or change the recipe's image_size and crop_size.",
        )
        batches = source.batches(self.batch_size, seed, on_device=on_device)
        model = self.build(len(source), len(batches), seed, jit_compile)
        if verbose:
            print(self)
        epochs = self.epochs if epochs is None else epochs
        if output is None:
            model.fit(batches, epochs=epochs, callbacks=[*callbacks], verbose=verbose)
            return model
        output = Path(output)
        with FolderLock(output):
            remove_parts(output)
            self._claim(output, seed, source.manifest)
            saved = [LogFile(output / "log.csv"), Checkpoints(output / "checkpoints", save_freq)]
            model.fit(batches, epochs=epochs, callbacks=[*callbacks, *saved], verbose=verbose)
            model.save(output / "model.keras")
        return model

    def to_dict(self):
        """All settings, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def __str__(self):
        settings = self.to_dict()
        source, deviations = settings.pop("source"), settings.pop("deviations")
        lines = [f"recipe {settings.pop('name')}, after {source}"]
        lines += [f"  {name}: {value}" for name, value in settings.items()]
        lines += ["  deviations:", *(f"  - {sentence}" for sentence in deviations)]
        return "\n".join(lines if deviations else lines[:-1])

    def _claim(self, output, seed, manifest):
        """Write down what runs in this folder, or raise if it is another run's."""
        path = output / "recipe.json"
        run = {"recipe": self.to_dict(), "seed": seed, "data": manifest.fingerprint}
        if not path.exists():
            with replacing(path) as part:
                part.write_text(json.dumps(run, indent=1) + "\n")
            return
        try:
            stored = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"Received: {path}, which is damaged ({error}). Expected what an earlier run wrote "
                "there. Remove the file if this is the same recipe, seed and data set."
            ) from error
        other = [name for name in run if run[name] != stored.get(name)]
        require(
            not other,
            f"output={str(output)!r}, that holds another run: its {', '.join(other)} differs",
            "an empty folder, or the one of the same recipe, seed and data",
            "Choose another folder, or remove this one.",
        )
