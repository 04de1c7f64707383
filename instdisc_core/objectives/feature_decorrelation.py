"""The decorrelation of features that IDFD adds to instance discrimination."""

from typing import Any

import keras
from einops import einsum, reduce
from keras import ops

from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.normalization import unit
from instdisc_core.objectives.base import Objective
from instdisc_core.types import Tensor
from instdisc_core.validation import warn_of_small_batch


@keras.saving.register_keras_serializable(package="instdisc_core")
class FeatureDecorrelation(Objective):
    """A softmax over the features of a batch, in which every feature is a class of its own.

    With ``u_l`` column ``l`` of the batch of embeddings ``(batch, d)``, divided by its length, and
    the cosines ``c_lm = u_l . u_m``, which are 1 for ``l = m``:

        L = mean_l (log sum_m exp(c_lm / temperature) - c_ll / temperature)

    It is small where the features are not correlated: ``log(1 + (d - 1) exp(-1 / temperature))`` if
    all columns are orthogonal. One number describes the batch, so every image gets it as its loss,
    and the mean over the images is ``L``. It reads no row of the bank. The framework
    differentiates it.

    Fewer images than ``d`` cannot have orthogonal columns. ``fit`` warns of such a batch: take a
    larger one, or leave out the last images of an epoch (``drop_remainder=True``). In a loop of
    your own the first such batch is a warning; a step that TensorFlow compiles for batches of any
    size does not know it.

    Args:
        temperature: at least 1e-6; IDFD uses 2.

    Source:
        Tao, Takagi and Nakata, ICLR 2021 (IDFD), the softmax-formulated constraint on latent
        features. The paper adds up the columns; here the mean is taken, so that the loss does not
        grow with ``d``.

    Example:
    ```python
    idfd = NonParametricSoftmax(temperature=1.0) + FeatureDecorrelation(temperature=2.0)
    model = InstanceDiscrimination(encoder, num_instances=len(images), objective=idfd)
    ```
    """

    def __init__(self, temperature: float = 2.0, **kwargs: Any):
        super().__init__(temperature, **kwargs)
        self._warned = False

    def image_losses(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, training: bool
    ) -> Tensor:
        """See ``Objective.image_losses``."""
        if training:
            self.check_batch(*features.shape)
        u = unit(features, axis=0)
        s = einsum(u, u, "image feature, image other -> feature other") / self.temperature
        own = reduce(ops.square(u), "image feature -> feature", "sum") / self.temperature
        loss = ops.mean(ops.logsumexp(s, axis=1) - own)
        return ops.broadcast_to(loss, ops.shape(indices))

    def check_batch(self, num_embeddings: int | None, embedding_dim: int) -> None:
        """See ``Objective.check_batch``; fewer embeddings than their width are a warning, once."""
        if num_embeddings is None or num_embeddings >= embedding_dim or self._warned:
            return
        self._warned = True
        why = "the columns of a smaller batch cannot be orthogonal"
        found = f"{num_embeddings} embeddings of width {embedding_dim}"
        warn_of_small_batch(found, embedding_dim, why)
