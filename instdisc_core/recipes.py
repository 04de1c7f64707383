"""Whole trainings by name: every setting, where it comes from, and what differs from there."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from instdisc_core import objectives
from instdisc_core.augmentation import paper_augmentation, simclr_augmentation
from instdisc_core.callbacks import LogFile
from instdisc_core.encoders import resnet
from instdisc_core.model import InstanceDiscrimination
from instdisc_core.validation import require, require_count


@dataclass(frozen=True)
class Recipe:
    """All settings of a training, from the augmentation to the learning rate.

    Change one with ``dataclasses.replace(recipe, epochs=10)`` or ``get(name, epochs=10)``.

    Attributes:
        name: of the recipe.
        source: where its settings come from.
        departures: what differs from there, a tuple of sentences.
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
        num_neighbours, knn_temperature: of the classifier that judges the embedding.
        dtype_policy: Keras's; the bank, scores and losses are float32 in any.
    """

    name: str
    source: str
    departures: tuple = ()
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
    num_neighbours: int = 200
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
    ):
        """Print the recipe, train on the images, and keep what the run needs to be resumed.

        Args:
            source: an ``instdisc_core.data.ImageSource``.
            output: folder to write to: ``recipe.json``, ``log.csv``, ``model.keras`` at the end,
                and a backup after each epoch, from which a run that was interrupted goes on when
                it is started again. None writes nothing.
            seed: of everything that is drawn.
            callbacks: further Keras callbacks.
            epochs: stop after this many; the schedule stays that of ``self.epochs``.
            verbose: of ``fit``; 0 prints nothing.
            jit_compile: see ``build``.
            on_device: see ``data.ImageBatches``.

        Returns:
            The trained model. The losses of the epochs that this call ran are in
            ``model.history.history``, those of all in ``log.csv``.

        Raises:
            ValueError: images of another size than the recipe's, or ``output`` holds a run of
                another recipe, seed or data set.

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
        callbacks = list(callbacks)
        if output is not None:
            output = Path(output)
            self._claim(output, seed, source.manifest)
            callbacks.append(LogFile(output / "log.csv"))
            callbacks.append(
                keras.callbacks.BackupAndRestore(
                    output / "backup", double_checkpoint=True, delete_checkpoint=False
                )
            )
        epochs = self.epochs if epochs is None else epochs
        model.fit(batches, epochs=epochs, callbacks=callbacks, verbose=verbose)
        model._initial_epoch = 0  # Keras would count a later fit from where the backup was
        if output is not None:
            model.save(output / "model.keras")
        return model

    def to_dict(self):
        """All settings, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def __str__(self):
        settings = self.to_dict()
        source, departures = settings.pop("source"), settings.pop("departures")
        lines = [f"recipe {settings.pop('name')}, after {source}"]
        lines += [f"  {name}: {value}" for name, value in settings.items()]
        lines += ["  departures:", *(f"  - {sentence}" for sentence in departures)]
        return "\n".join(lines if departures else lines[:-1])

    def _claim(self, output, seed, manifest):
        """Write down what runs in this folder, or raise if it is another run's."""
        output.mkdir(parents=True, exist_ok=True)
        path = output / "recipe.json"
        run = {"recipe": self.to_dict(), "seed": seed, "data": manifest.fingerprint}
        if not path.exists():
            path.write_text(json.dumps(run, indent=1) + "\n")
            return
        stored = json.loads(path.read_text())
        other = [name for name in run if run[name] != stored.get(name)]
        require(
            not other,
            f"output={str(output)!r}, in which another run lies: its {', '.join(other)} differs",
            "an empty folder, or the one of the same recipe, seed and data",
            "Choose another folder, or remove this one.",
        )


@keras.saving.register_keras_serializable(package="instdisc_core")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that warms up, and then falls in steps or along a cosine.

    Args:
        highest: the learning rate after the warm-up, greater than 0.
        steps: of the whole training; from there on a cosine stays at 0.
        warmup_steps: in which it rises linearly, from one step's share to the highest.
        milestones: steps at which it is divided by 10; none is a cosine.

    Source:
        The steps are those of Wu et al.; the cosine is Loshchilov and Hutter's, ICLR 2017.

    Example: ``keras.optimizers.SGD(Schedule(0.03, steps=78_200, milestones=[46_920, 62_560]))``
    """

    def __init__(self, highest, steps, warmup_steps=0, milestones=()):
        require_count("steps", steps)
        self.highest, self.steps = highest, steps
        self.warmup_steps, self.milestones = warmup_steps, list(milestones)

    def __call__(self, step):
        """The learning rate at a step, counted from 0."""
        step = keras.ops.cast(step, "float32")
        warm = keras.ops.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        if self.milestones:
            passed = sum(keras.ops.cast(step >= m, "float32") for m in self.milestones)
            return self.highest * warm * 10.0**-passed
        cooling = max(self.steps - self.warmup_steps, 1)
        done = keras.ops.clip((step - self.warmup_steps) / cooling, 0.0, 1.0)
        return self.highest * warm * 0.5 * (1 + keras.ops.cos(math.pi * done))

    def get_config(self):
        """The arguments that rebuild this schedule."""
        return {
            "highest": self.highest,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "milestones": self.milestones,
        }


_KERAS_COLOURS = (
    "Keras's colour layers: brightness is added, contrast is about each channel's mean, in a fixed "
    "order."
)
_BANK = "The bank starts from normalised Gaussian rows."

_RECIPES = (
    Recipe(
        name="paper-cifar10",
        source="Wu et al., CVPR 2018, section 4.1 and Table 1, exact softmax",
        departures=(_KERAS_COLOURS, _BANK),
        augmentation_settings=(("flip", False),),
    ),
    Recipe(
        name="lemniscate-cifar10",
        source="the official code, cifar.py of lemniscate.pytorch: NCE with 4096 negatives",
        departures=(
            _KERAS_COLOURS,
            _BANK,
            "Z follows the bank by a moving average instead of being fixed at the first batch.",
        ),
        augmentation_settings=(("flip", False),),
        objective="nce",
        objective_settings=(("num_negatives", 4096),),
    ),
    Recipe(
        name="paper-imagenet",
        source="Wu et al., CVPR 2018, section 4.2, ResNet-18; the proximal weight of figure 3",
        departures=(
            _KERAS_COLOURS,
            _BANK,
            "Images are read at 256 x 256 pixels, their central square, and cropped from there; "
            "the official code crops from the whole photograph.",
            "Z follows the bank by a moving average instead of being fixed at the first batch.",
        ),
        image_size=256,
        crop_size=224,
        stem="imagenet",
        objective="nce",
        temperature=0.07,
        objective_settings=(("num_negatives", 4096), ("proximal_weight", 30.0)),
        batch_size=256,
        weight_decay=1e-4,
        milestones=(120, 160),
        knn_temperature=0.07,
    ),
    Recipe(
        name="modern-cifar10",
        source="paper-cifar10, with what has been learned since",
        departures=(
            "Crops of 24 pixels: 0.56 of the work, and objects of the size they have in whole "
            "images of 32.",
            "Milder colours, with SimCLR's flip; AdamW; a cosine after a warm-up; bfloat16.",
        ),
        crop_size=24,
        augmentation="simclr",
        augmentation_settings=(("strength", 0.5), ("blur", False), ("scale", (0.2, 1.0))),
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.01,
        warmup_epochs=10,
        milestones=(),
        dtype_policy="mixed_bfloat16",
    ),
    Recipe(
        name="small-cifar10",
        source="modern-cifar10, for two processor cores and 10,000 images",
        departures=("A residual network of depth 10 and half the width, on patches of 2 x 2.",),
        crop_size=24,
        augmentation="simclr",
        augmentation_settings=(("strength", 0.5), ("blur", False), ("scale", (0.2, 1.0))),
        depth=10,
        stem="patch",
        width=32,
        epochs=25,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.01,
        warmup_epochs=5,
        milestones=(),
        dtype_policy="mixed_bfloat16",
    ),
)


def names():
    """The names of all recipes."""
    return [recipe.name for recipe in _RECIPES]


def get(name, **changes):
    """The recipe of this name, with changes.

    Args:
        name: one of ``names()``.
        **changes: attributes of Recipe; each is added to ``departures``. With other ``epochs``
            the warm-up and the milestones, if they are not given too, move in proportion.

    Raises:
        ValueError: an unknown name or attribute.

    Example: ``recipe = get("paper-cifar10", epochs=20)``
    """
    found = {recipe.name: recipe for recipe in _RECIPES}
    require(name in found, f"recipe {name!r}", f"one of {', '.join(map(repr, found))}")
    fields = {field.name for field in dataclasses.fields(Recipe)}
    unknown = sorted(set(changes) - fields)
    require(
        not unknown,
        f"settings {', '.join(unknown)} that a recipe does not have",
        f"some of {', '.join(sorted(fields))}",
    )
    recipe = found[name]
    if "epochs" in changes:
        share = changes["epochs"] / recipe.epochs
        moved = tuple(round(share * epoch) for epoch in recipe.milestones)
        changes = {
            "warmup_epochs": round(share * recipe.warmup_epochs),
            "milestones": moved,
            **changes,
        }
    changed = [
        f"{key} is {value!r} instead of {getattr(recipe, key)!r}."
        for key, value in changes.items()
        if value != getattr(recipe, key)
    ]
    departures = (*recipe.departures, *changed)
    return dataclasses.replace(recipe, **{"departures": departures, **changes})
