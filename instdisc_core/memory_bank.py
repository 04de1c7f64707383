"""The memory bank: one unit row for each image."""

import math

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import gather_rows
from instdisc_core.data.manifest import Manifest
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.registry import get_bank_ops
from instdisc_core.validation import (
    UNIT_TOLERANCE,
    check_features,
    check_indices,
    check_paired,
    require,
    require_count,
    require_number,
    widened,
)


@keras.saving.register_keras_serializable(package="instdisc_core")
class MemoryBank(keras.layers.Layer):
    """The embeddings of all images, as they were last seen: classifier, search index, checkpoint.

    Row ``v_i`` belongs to image ``i``. The rows start as random points of the unit sphere and
    move only when ``update`` is called:

        v_i <- normalize(momentum * v_i + (1 - momentum) * f_i)

    An index that is given twice moves once, towards the mean of its embeddings, so the result
    depends neither on their order nor on how a batch is split. An embedding that is not finite,
    is zero, or is so long that its square overflows float32, and an index outside
    ``[0, num_instances)`` move nothing. They are counted in ``rejected_embeddings`` and
    ``rejected_indices``; see ``update`` for which of them raise.

    Args:
        num_instances: number of images, ``n``.
        embedding_dim: width of an embedding, ``d``.
        momentum: weight of the old row, in ``[0, 1)``; 0 replaces it, as the paper's text does.
        dtype: storage of the rows: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"int8"``
            with a float32 scale for each row. Whatever it is, what is computed from the rows is
            float32. Coarse storage can lose small moves: see ``docs/performance.md`` for what each
            costs in accuracy.
        seed: integer that makes the starting rows repeatable. The same seed gives the same rows
            on every framework. None draws fresh ones.
        backend: which primitives to use, see ``registry.get_bank_ops``. It says how the bank runs,
            not what it is, and is not saved with it.

    Attributes:
        rows: the variable ``(num_instances, embedding_dim)``, or ``QuantizedRows`` of two;
            ``rows.assign(array)`` restores it, ``lookup`` reads it.
        manifest: the Manifest of the images that the rows belong to, or None. It is saved and
            loaded with the rows.
        rejected_embeddings: variable ``()``, int32: embeddings rejected so far.
        rejected_indices: variable ``()``, int32: indices rejected so far.

    Raises:
        ValueError: an argument is out of its range.

    Source:
        Wu et al., CVPR 2018, section 3.1. The start is Gaussian and normalized; the official code
        draws from a uniform distribution and does not normalize. Momentum is the official code's.

    Example:
    ```python
    bank = MemoryBank(num_instances=50_000, embedding_dim=128, seed=0)
    bank.update(indices, features)
    scores, neighbors = bank.search(features, k=10)
    ```
    """

    def __init__(
        self,
        num_instances,
        embedding_dim,
        momentum=0.5,
        dtype="float32",
        seed=None,
        backend=None,
        **kwargs,
    ):
        require_count("num_instances", num_instances)
        require_count("embedding_dim", embedding_dim)
        require_number("momentum", momentum, 0, 1)
        kinds = ("float32", "bfloat16", "float16", "int8")
        require(dtype in kinds, f"dtype={dtype!r}", f"one of {kinds}")
        fixed = {"name": "memory_bank"}  # so that one bank's state_dict fits the next
        super().__init__(dtype="float32", trainable=False, **{**fixed, **kwargs})
        self.num_instances = int(num_instances)
        self.embedding_dim = int(embedding_dim)
        self.momentum = float(momentum)
        self.seed = seed
        self._ops = get_bank_ops(backend)
        self.rows = self._random_rows(dtype)
        self.rejected_embeddings = self._counter("rejected_embeddings")
        self.rejected_indices = self._counter("rejected_indices")
        self.manifest: Manifest | None = None
        self._load_error: ValueError | None = None
        self.build(self.shape)  # nothing left to create; it registers the state with PyTorch

    @property
    def shape(self):
        """``(num_instances, embedding_dim)``."""
        return (self.num_instances, self.embedding_dim)

    def lookup(self, indices):
        """The rows of these images.

        Args:
            indices: integers ``(batch,)`` in ``[0, num_instances)``.

        Returns:
            Float32 tensor ``(batch, embedding_dim)``.

        Raises:
            ValueError: indices that are not integers, not one-dimensional, or out of range.
        """
        indices = ops.cast(check_indices(indices, self.num_instances), "int32")
        return gather_rows(self.rows, indices)

    def update(self, indices, features, after=None):
        """Move the rows of these images towards their new embeddings.

        Call it after the loss has read the old rows, in training only. No gradient flows.

        Args:
            indices: integers ``(batch,)`` in ``[0, num_instances)``.
            features: ``(batch, embedding_dim)``, unit embeddings.
            after: a float tensor computed from the old rows, such as the losses, which the update
                then waits for. Inside a step that XLA compiles (JAX, and TensorFlow with
                ``jit_compile``), give it: only if XLA sees that the reading is over does it write
                in place; else it copies the whole bank, twice.

        Raises:
            ValueError: indices that are not integers or not one-dimensional, or features of the
                wrong shape; and, where the values are in the host's memory, indices out of range
                or a row of zeros. The bank is then unchanged. In a compiled step and on an
                accelerator values cannot raise; what is wrong is left out and counted instead.
        """
        indices = check_indices(indices, self.num_instances)
        features = check_features(features, self.embedding_dim)
        check_paired(indices, features)
        if indices.shape[0] == 0:
            return
        self.require_writable()
        features = self._stopped(features)
        if after is not None:
            never = ops.logical_and(ops.isnan(after), ops.isfinite(after))
            indices = ops.where(ops.any(never), -1, indices)
        known = self.contains(indices)
        square = ops.sum(ops.square(features), axis=1)  # of no finite length: no direction
        usable = ops.logical_and(square > 0, square < math.inf)
        self.rejected_indices.assign_add(_count(ops.logical_not(known)))
        self.rejected_embeddings.assign_add(_count(ops.logical_not(usable)))

        # What is rejected joins, with no weight, the group of an image that is not, so that every
        # entry names a row which this update may write.
        accepted = ops.logical_and(known, usable)
        indices = ops.cast(ops.where(known, indices, 0), "int32")
        indices = ops.where(accepted, indices, ops.take(indices, ops.argmax(accepted)))
        means, counts = _means(indices, features, ops.cast(accepted, "float32"))
        rows, moves = self._moved(gather_rows(self.rows, indices), means, counts)
        for variable, new in self._as_stored(rows):
            old = ops.take(variable.value, indices, axis=0)  # what stays put keeps its every bit
            self._ops.update_rows(variable, indices, ops.where(moves, new, old))

    def search(self, features, k):
        """The images whose rows are most similar to these embeddings.

        Args:
            features: ``(queries, embedding_dim)``; unit embeddings make the scores cosines.
            k: how many, in ``[1, num_instances]``.

        Returns:
            ``(scores, indices)``, each ``(queries, k)``, best first; float32 and int32. A query
            that is not finite, where its values could not be checked, has the scores NaN and the
            indices -1.

        Raises:
            ValueError: features of the wrong shape, or k out of range; and, where the values are
                in the host's memory, features that are not finite.
        """
        features = check_features(features, self.embedding_dim, finite=True)
        require_count("k", k)
        require(k <= self.num_instances, f"k={k}", f"at most num_instances={self.num_instances}")
        features = self._stopped(features)
        finite = ops.all(ops.isfinite(features), axis=1, keepdims=True)
        scores, indices = self._ops.top_k(ops.where(finite, features, 0.0), self.rows, k)
        return ops.where(finite, scores, math.nan), ops.where(finite, indices, -1)

    def scores(self, features, indices):
        """Inner products ``v_j . f_i`` with chosen rows; see ``BankOps.scores``."""
        return self._ops.scores(self._stopped(features), self.rows, indices)

    def combine(self, weights, indices):
        """Weighted sums of chosen rows; see ``BankOps.combine``."""
        return self._ops.combine(self._stopped(weights), self.rows, indices)

    def attend(self, features, temperature):
        """``log Z_i`` and the expected row under the softmax; see ``BankOps.attend``."""
        return self._ops.attend(self._stopped(features), self.rows, temperature)

    def require_writable(self) -> None:
        """Raise where an update would be lost; see ``BankOps.require_writable``.

        Raises:
            RuntimeError: a step that JAX compiles, outside a ``keras.StatelessScope``.
        """
        self._ops.require_writable()

    def contains(self, indices):
        """Which of these integers name a row: a boolean tensor of their shape."""
        indices = ops.convert_to_tensor(widened(indices))
        return ops.logical_and(indices >= 0, indices < self.num_instances)

    def save_own_variables(self, store):
        """Save the rows, the counters, and the manifest."""
        super().save_own_variables(store)
        if self.manifest is not None:
            store["manifest"] = self.manifest.to_array()

    def load_own_variables(self, store):
        """Restore what ``save_own_variables`` saved, all of it or nothing.

        Without a manifest in the file the bank has none afterwards: the one that it had belongs to
        other rows.

        Raises:
            ValueError: the file's rows have another shape, are not finite or not of length 1, or
                are not as many as the manifest's images. The bank is then unchanged.
        """
        arrays = {name: np.asarray(store[name]) for name in store.keys()}  # noqa: SIM118
        error, self._load_error = self._load_error, None
        if not arrays and error:  # Keras tries once more, where nothing is saved
            raise error
        try:
            packed = arrays.pop("manifest", None)
            manifest = None if packed is None else Manifest.from_array(packed)
            self._check_saved(arrays, manifest)
        except ValueError as error:
            self._load_error = error
            raise
        super().load_own_variables(arrays)
        self.manifest = manifest

    def get_config(self):
        """The arguments that rebuild this layer."""
        return {
            "name": self.name,
            "num_instances": self.num_instances,
            "embedding_dim": self.embedding_dim,
            "momentum": self.momentum,
            "dtype": keras.backend.standardize_dtype(self.rows.dtype),
            "seed": self.seed,
        }

    def _check_saved(self, arrays, manifest):
        """Raise unless what a file holds is a bank of this shape, with unit rows."""
        variables = [*(self.rows if isinstance(self.rows, QuantizedRows) else (self.rows,))]
        shapes = {str(i): tuple(v.shape) for i, v in enumerate(variables)}
        found = {name: arrays[name].shape for name in shapes if name in arrays}
        require(
            found == shapes,
            f"a file whose memory bank has the shapes {found}",
            f"{shapes}, those of this bank",
            "Build the model with the number of images, width and storage that it was saved with.",
        )
        parts = [arrays[name].astype("float32") for name in shapes]
        lengths = np.linalg.norm(parts[0], axis=1) * (abs(parts[1][:, 0]) if parts[1:] else 1.0)
        wrong = int(np.sum(~(np.abs(lengths - 1) < UNIT_TOLERANCE)))
        require(
            wrong == 0,
            f"a file in which {wrong} of {len(lengths)} rows of the bank are not of length 1",
            "unit rows, as update leaves them",
            "The file is damaged, or rows were assigned that are not normalized.",
        )
        require(
            manifest is None or len(manifest) == self.num_instances,
            f"a file with {self.num_instances} rows and a manifest of "
            f"{0 if manifest is None else len(manifest)} images",
            "one image for each row",
        )

    def _moved(self, rows, means, counts):
        """``normalize(momentum v + (1 - momentum) f)``, and whether that has a direction."""
        mixed = self.momentum * rows + (1 - self.momentum) * means
        length = ops.norm(mixed, axis=1, keepdims=True)
        moves = ops.logical_and(counts > 0, ops.logical_and(length > 0, length < math.inf))
        return mixed / ops.where(moves, length, 1.0), moves

    def _as_stored(self, rows):
        """The bank's variables, each with what it holds of these rows, in its own dtype."""
        if isinstance(self.rows, QuantizedRows):
            return zip(self.rows, QuantizedRows.of(rows), strict=True)
        return [(self.rows, ops.cast(rows, self.rows.dtype))]

    def _random_rows(self, dtype):
        rows = np.random.default_rng(self.seed).standard_normal(self.shape, dtype="float32")
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        if dtype != "int8":
            return self._storage("rows", rows, dtype)
        values, scale = QuantizedRows.of(rows)
        return QuantizedRows(
            self._storage("values", values, "int8"), self._storage("scale", scale, "float32")
        )

    def _storage(self, name, start, dtype):
        return self.add_weight(
            name=name,
            shape=start.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype=dtype),
            trainable=False,
            autocast=False,
        )

    def _counter(self, name):
        return self.add_weight(
            name=name, shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    @staticmethod
    def _stopped(array):
        return ops.cast(ops.stop_gradient(ops.convert_to_tensor(array)), "float32")


def _count(condition):
    return ops.sum(ops.cast(condition, "int32"))


def _means(indices, features, weights):
    """For every entry, the weighted mean of the features that share its index, and their count."""
    batch = ops.shape(indices)[0]
    first = ops.cast(ops.argmax(indices[:, None] == indices[None, :], axis=1), "int32")

    def total(values):
        return ops.take(ops.segment_sum(values, first, num_segments=batch), first, axis=0)

    weights = weights[:, None]
    counts = total(weights)
    return total(ops.where(weights > 0, features, 0.0)) / ops.maximum(counts, 1.0), counts
