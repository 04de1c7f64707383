"""InstanceDiscrimination: encoder, memory bank and objective as one Keras model."""

import keras
from keras import ops

from instdisc_core import objectives
from instdisc_core.callbacks import DataOrder, RefusedIndices
from instdisc_core.data import ImageBatches, Manifest
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.validation import check_indices, require


@keras.saving.register_keras_serializable(package="instdisc_core")
class InstanceDiscrimination(keras.Model):
    """Learns an embedding in which every image is a class of its own.

    ``fit(images, indices)`` trains it: the target of an image is its index, 0 to
    ``num_instances - 1``, the same in every epoch. ``fit(source.batches())`` trains it on an
    ``instdisc_core.data.ImageSource``, whose manifest it then keeps and checks.
    ``predict(images)`` gives unit embeddings, ``evaluate(images, indices)`` the mean loss in nats,
    and moves nothing. ``compile`` takes an optimizer and no loss: the objective is the loss.

    Args:
        encoder: from a batch of images to ``(batch, features)``: any Keras model or layer, or,
            on the torch backend, any ``torch.nn.Module``.
        num_instances: number of training images, ``n``.
        embedding_dim: width of the embedding, ``d``.
        objective: ``"nce"``, ``"shared_nce"``, ``"non_parametric_softmax"``, ``"info_nce"``,
            ``"parametric_softmax"``, or an Objective; see ``cheapest_objective``.
        momentum: of the memory bank, in ``[0, 1)``.
        projector: from the encoder's features to ``(batch, embedding_dim)``; None is a dense
            layer, the paper's linear head. The L2 norm is always taken after it.
        augmenter: applied to the images in training only; any Keras layer or model.
        bank_dtype: storage of the memory bank, see ``MemoryBank``.
        seed: of the memory bank's start, and of the negatives of an objective given by name.
        backend: see ``registry.get_bank_ops``; not saved with the model.

    Attributes:
        memory_bank: the MemoryBank.
        objective: the Objective.
        manifest: the Manifest of the images that the bank's rows belong to, or None.

    Raises:
        ValueError: an argument out of its range, or an unknown objective. ``fit``, ``evaluate``
            and the ``*_on_batch`` methods raise it for indices that are not integers, not
            one-dimensional, or out of range. Arrays are checked before the first step. A data
            set or generator is checked batch by batch in eager execution; in a compiled step,
            which cannot raise, such an image gets the loss NaN and trains nothing, and ``fit``
            raises at the end of the epoch.

    Source:
        Wu et al., CVPR 2018, figure 2.

    Example:
    ```python
    model = InstanceDiscrimination(encoder, num_instances=len(images), objective="nce")
    model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
    model.fit(images, np.arange(len(images)), epochs=200)
    scores, neighbours = model.memory_bank.search(model.predict(queries), k=10)
    ```
    """

    def __init__(
        self,
        encoder,
        num_instances,
        embedding_dim=128,
        objective="nce",
        momentum=0.5,
        projector=None,
        augmenter=None,
        bank_dtype="float32",
        seed=None,
        backend=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.memory_bank = MemoryBank(
            num_instances, embedding_dim, momentum, bank_dtype, seed, backend, name="memory_bank"
        )
        self.objective = objectives.get(objective, seed=seed)
        if not self.objective.built:
            self.objective.build(self.memory_bank.shape)
        self.encoder = encoder
        self.projector = keras.layers.Dense(embedding_dim) if projector is None else projector
        self.augmenter = augmenter
        self.seed = seed
        if hasattr(self.objective, "partition"):
            self.log_partition_tracker = keras.metrics.Mean(name="log_partition")

    @property
    def manifest(self) -> Manifest | None:
        """The Manifest of the images that the bank's rows belong to, or None."""
        return self.memory_bank.manifest

    @manifest.setter
    def manifest(self, manifest):
        self.memory_bank.manifest = manifest

    def build(self, images_shape):
        """Build all parts for images of this shape, whose first axis is the batch.

        ``fit`` and the first call do it by themselves.
        """
        images = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor((None, *shape[1:])), images_shape
        )
        self.compute_output_spec(images, training=True)

    def call(self, images, training=None):
        """Unit embeddings ``(batch, embedding_dim)``, float32, of a batch of images."""
        if training and self.augmenter is not None:
            images = self.augmenter(images, training=True)
        features = self.encoder(images, training=training)
        require(
            len(features.shape) == 2,
            f"an encoder whose output has shape {tuple(features.shape)}",
            "shape (batch, features)",
            "Pool it: pooling='avg' in keras.applications, or a GlobalAveragePooling2D layer.",
        )
        embeddings = self.projector(features, training=training)
        require(
            tuple(embeddings.shape[1:]) == (self.memory_bank.embedding_dim,),
            f"a projector whose output has shape {tuple(embeddings.shape)}",
            f"shape (batch, {self.memory_bank.embedding_dim}), as embedding_dim says",
        )
        return ops.normalize(ops.cast(embeddings, "float32"), axis=-1)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean of the objective over the batch; in training the bank then moves."""
        self._check_targets(y)
        losses = self.objective(y_pred, y, self.memory_bank, training=training)
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        loss = ops.mean(losses)
        for regularizer in self.losses:
            loss = loss + regularizer
        if training:
            self.memory_bank.update(y, y_pred, after=losses)
        if hasattr(self, "log_partition_tracker"):
            self.log_partition_tracker.update_state(self.objective.partition.log_partition)
        return loss

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs
    ):
        """Train; see ``keras.Model.fit``. ``y`` holds the instance index of each image."""
        own = [RefusedIndices()]
        if isinstance(x, ImageBatches):
            own.append(DataOrder(x))
            kwargs = {**kwargs, "shuffle": False}  # the batches have an order of their own
        if isinstance(callbacks, keras.callbacks.CallbackList):
            for callback in own:
                callback.set_model(self)
                callbacks.callbacks.append(callback)
        else:
            callbacks = [*own, *keras.tree.flatten(callbacks or [])]
        return super().fit(x, self._checked(y), batch_size, epochs, verbose, callbacks, **kwargs)

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", **kwargs):
        """The loss in nats; see ``keras.Model.evaluate``. Nothing moves."""
        if isinstance(x, ImageBatches):
            self.check_data(x.manifest)
        return super().evaluate(x, self._checked(y), batch_size, verbose, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Unit embeddings ``(n, embedding_dim)``; see ``keras.Model.predict``."""
        require(
            not isinstance(x, ImageBatches) or x.seed is None,
            "batches in the order of training",
            "images in the order of their indices",
            "Give predict source.ordered().",
        )
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """One step; see ``keras.Model.train_on_batch``."""
        return super().train_on_batch(x, self._checked(y), *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """The loss of one batch; see ``keras.Model.test_on_batch``."""
        return super().test_on_batch(x, self._checked(y), *args, **kwargs)

    def check_data(self, manifest):
        """Raise unless the data are those that the bank was trained on.

        ``fit`` remembers the manifest of the first ImageSource that it trains on, and it is saved
        with the model. Until then any data of the bank's length will do.

        Args:
            manifest: the Manifest of the data at hand.

        Raises:
            ValueError: it names the images that differ, or says how many rows the bank has.
        """
        n = self.memory_bank.num_instances
        require(
            len(manifest) == n,
            f"a data set with {len(manifest)} images",
            f"{n}, one for each row of the memory bank",
            f"Build the model with num_instances={len(manifest)}.",
        )
        if self.manifest is not None:
            self.manifest.check(manifest)

    def save_own_variables(self, store):
        """Save the states of all random generators too, which Keras leaves out."""
        super().save_own_variables(store)
        for name, state in self.random_states():
            store[name] = state.numpy()

    def load_own_variables(self, store):
        """Restore what ``save_own_variables`` saved; a generator that is new keeps its state."""
        names = set(store.keys())
        for name, state in self.random_states():
            if name in names:
                state.assign(store[name])
        own = {name: store[name] for name in names if not name.startswith("random_state")}
        super().load_own_variables(own)

    def get_config(self):
        """The arguments that rebuild this model."""
        parts = {
            "encoder": self.encoder,
            "objective": self.objective,
            "projector": self.projector,
            "augmenter": self.augmenter,
        }
        bank = self.memory_bank.get_config()
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_instances": bank["num_instances"],
            "embedding_dim": bank["embedding_dim"],
            "momentum": bank["momentum"],
            "bank_dtype": bank["dtype"],
            "seed": self.seed,
            **{k: keras.saving.serialize_keras_object(v) for k, v in parts.items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuild a model from its configuration."""
        nested = {k: v for k, v in config.items() if isinstance(v, dict)}
        restored = {
            k: keras.saving.deserialize_keras_object(v, custom_objects) for k, v in nested.items()
        }
        return cls(**{**config, **restored})

    def get_compile_config(self):
        """How the model was compiled, in terms that hold on every Keras backend.

        Keras names the optimizer by its class on the backend at hand, and fixes what
        ``jit_compile="auto"`` meant there; neither could be loaded on another.
        """
        config = super().get_compile_config()
        optimizer = config.get("optimizer")
        if isinstance(optimizer, dict) and optimizer["module"].startswith("keras.src.backend"):
            config["optimizer"] = {
                **optimizer,
                "module": "keras.optimizers",
                "registered_name": None,
            }
        return {**config, "jit_compile": "auto"} if config else config

    def random_states(self):
        """Name and variable of the state of every random generator, part by part."""
        for part in ("augmenter", "encoder", "projector", "objective"):
            layer = getattr(self, part)
            if layer is not None:
                saved = {id(weight) for weight in layer.weights}
                states = [v for v in layer.variables if id(v) not in saved]
                yield from ((f"random_state_{part}_{i}", v) for i, v in enumerate(states))

    def _check_targets(self, y):
        require(
            getattr(self, "loss", None) is None,
            f"compile(loss={getattr(self, 'loss', None)!r})",
            "no loss: the objective is the loss",
            "Leave it out of compile().",
        )
        require(
            y is not None,
            "no targets",
            "the instance index of each image",
            "For an array: fit(images, numpy.arange(len(images))).",
        )

    def _checked(self, y):
        """Targets that are an array, checked; any others as they are."""
        if hasattr(y, "dtype") or isinstance(y, (list, tuple)):
            return check_indices(y, self.memory_bank.num_instances)
        return y
