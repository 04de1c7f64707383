"""What ``fit``, ``evaluate`` and ``predict`` check before Keras's run, and what is logged."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras
import numpy as np

from instdisc_core.data import ImageBatches, Manifest
from instdisc_core.data.checked import with_narrow_indices
from instdisc_core.fitting import NonFiniteImages, calls, divided, whole_batch, without_padding
from instdisc_core.host_rows import HostRows
from instdisc_core.persistent_model import PersistentModel
from instdisc_core.types import Tensor
from instdisc_core.validation import require, warn_of_small_batch


class TrainingModel(PersistentModel):
    """A Keras model that knows its data, rejects bad ones, and continues where it was stopped.

    Attributes:
        manifest: the Manifest of the images that the model is trained on, or None.
        saves_manifest: whether the model itself saves it, not one of its parts.
        non_finite: ``"raise"`` or ``"skip"``, see ``EmbeddingModel``.
        rejected_images: variable ``()``, int32: training images so far that were not finite.
        seed: of the order of arrays that ``Checkpoints`` can continue, or None.
        smallest_batch: images in a batch that the method can learn from.
    """

    manifest: Manifest | None = None
    saves_manifest = True
    non_finite: Literal["raise", "skip"] = "raise"
    rejected_images: keras.Variable
    seed: int | None = None
    smallest_batch = 1
    _unreported: frozenset[str] = frozenset()

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks that every ``fit`` of this model needs."""
        return [NonFiniteImages()]

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train; see ``keras.Model.fit``.

        With ``Checkpoints`` among the callbacks, training continues where it was killed.
        """
        arguments = {
            "x": x,
            "y": self.checked_targets(self.default_targets(x) if y is None else y),
            "batch_size": batch_size,
            "epochs": epochs,
            "verbose": verbose,
            "callbacks": callbacks,
            **kwargs,
        }
        self.check_validation(arguments["x"], kwargs.get("validation_data"))
        with calls(self, arguments) as calls_of_fit:
            for arguments in calls_of_fit:
                history = super().fit(**arguments)
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """The loss; see ``keras.Model.evaluate``. Nothing moves."""
        if isinstance(x, ImageBatches):
            self.check_data(x.manifest)
            require(
                x.sliding_window is None,
                f"batches of a {x.sliding_window}",
                "batches in which every image is once",
                "Give evaluate source.batches(...) without a window.",
            )
        y = self.checked_targets(y)
        with divided(x, y, kwargs.get("sample_weight"), batch_size) as even:
            if even is None:
                x = with_narrow_indices(x)
                return super().evaluate(x, y, batch_size, verbose, **kwargs)
            kwargs |= {"sample_weight": None}
            return super().evaluate(even, None, None, verbose, **kwargs)

    def predict(
        self, x: Any, batch_size: int | None = None, *args: Any, **kwargs: Any
    ) -> np.ndarray:
        """Unit embeddings ``(n, embedding_dim)``; see ``keras.Model.predict``."""
        require(
            not isinstance(x, ImageBatches) or x.seed is None,
            "batches in the order of training",
            "images in the order of their indices",
            "Give predict source.ordered().",
        )
        with divided(x, batch_size=batch_size) as even:
            if even is None:
                return super().predict(x, batch_size, *args, **kwargs)
            return super().predict(even, None, *args, **kwargs)

    def train_step(self, *arguments: Any) -> Any:
        """See ``keras.Model.train_step``; without what was added so that devices divide it."""
        *state, data = arguments
        return super().train_step(*state, without_padding(data))

    def test_step(self, *arguments: Any) -> Any:
        """See ``keras.Model.test_step``; as ``train_step``."""
        *state, data = arguments
        return super().test_step(*state, without_padding(data))

    def predict_step(self, *arguments: Any) -> Any:
        """See ``keras.Model.predict_step``; as ``train_step``."""
        *state, data = arguments
        found = super().predict_step(*state, without_padding(data))
        return (whole_batch(found[0]), *found[1:]) if state else found

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """One step; see ``keras.Model.train_on_batch``."""
        return super().train_on_batch(x, self.checked_targets(y), *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The loss of one batch; see ``keras.Model.test_on_batch``."""
        return super().test_on_batch(x, self.checked_targets(y), *args, **kwargs)

    def add_reports(self, names: Iterable[str]) -> None:
        """Log the mean of these numbers, in steps that give them to ``report``."""
        self.reported = {name: keras.metrics.Mean(name=name) for name in names}

    def report(self, values: Mapping[str, Tensor]) -> None:
        """Add the numbers of a step to what is logged; those that it leaves out are not logged."""
        for name, value in values.items():
            self.reported[name].update_state(value)
        self._unreported = frozenset(self.reported) - frozenset(values)

    def get_metrics_result(self) -> dict[str, Any]:
        """See ``keras.Model.get_metrics_result``; without what the step did not ``report``.

        A step that was compiled returned its own numbers, which Keras takes if others are here.
        """
        results = super().get_metrics_result()
        return {name: results[name] for name in results if name not in self._unreported}

    def further_arrays(self) -> dict[str, np.ndarray]:
        """See ``PersistentModel.further_arrays``: the manifest, unless a part saves it."""
        if self.manifest is None or not self.saves_manifest:
            return {}
        return {"manifest": self.manifest.to_array()}

    def take_further_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """See ``PersistentModel.take_further_arrays``."""
        if self.saves_manifest:
            packed = arrays.get("manifest")
            self.manifest = None if packed is None else Manifest.from_array(packed)

    @property
    def has_rows_of_host(self) -> bool:
        """Whether it has rows that are no variables, in the host's memory or in a file."""
        return any(isinstance(getattr(part, "rows", None), HostRows) for part in self.layers)

    def default_targets(self, x: Any) -> Any:
        """The targets of ``fit`` where none are given; a subclass may number the images."""
        return None

    def checked_targets(self, y: Any) -> Any:
        """Targets that are an array, as ``target_indices`` has them; any others as they are."""
        is_array = hasattr(y, "dtype") or isinstance(y, (list, tuple))
        return self.target_indices(y) if is_array else y

    def target_indices(self, y: Tensor) -> Tensor:
        """The indices of images that an array of targets holds; subclasses raise for others.

        Raises:
            ValueError: targets that a subclass does not take.
        """
        return y

    def check_validation(self, x: Any, given: Any) -> None:
        """Raise before the first step if ``validation_data`` cannot be evaluated on.

        Args:
            x: what is trained on.
            given: the argument of ``fit``.

        Raises:
            ValueError: other images than are trained on, or targets that are not theirs.
        """
        if isinstance(given, ImageBatches):
            self.check_data(given.manifest)
            if isinstance(x, ImageBatches):
                x.manifest.check(given.manifest)
        elif isinstance(given, (tuple, list)) and len(given) > 1:
            self.checked_targets(given[1])

    def check_batch(self, num_images: int | None) -> None:
        """Warn of a batch that is too small to learn from.

        Args:
            num_images: in the smallest batch of a training; None if ``fit`` does not know it.
        """
        if num_images is not None and num_images < self.smallest_batch:
            why = f"{type(self).__name__} tells an image from the others of its batch"
            warn_of_small_batch(f"{num_images} image", self.smallest_batch, why)

    def check_data(self, manifest: Manifest) -> None:
        """Raise unless the data are those that the model was trained on.

        ``fit`` remembers the manifest of the first ImageSource that it trains on, and it is saved
        with the model. Until then any data will do.

        Args:
            manifest: the Manifest of the data at hand.

        Raises:
            ValueError: it names the images that differ.
        """
        if self.manifest is not None:
            self.manifest.check(manifest)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load weights; see ``PersistentModel.load_weights``. The manifest stays with the rows."""
        manifest = self.manifest
        try:
            super().load_weights(filepath, skip_mismatch, **kwargs)
        except Exception:
            self.manifest = manifest
            raise
