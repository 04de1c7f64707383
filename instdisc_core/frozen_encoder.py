"""An encoder as it is, as a model: embeddings without any training."""

from typing import Any

import keras

from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.validation import require


def frozen(encoder: keras.layers.Layer) -> EmbeddingModel:
    """A model whose embeddings are the encoder's features, divided by their lengths.

    It is not trained. ``predict`` gives embeddings at once, ``evaluate`` and ``retrieve`` judge and
    search them, and ``save`` keeps it. Use it with an encoder that has learned elsewhere.

    Args:
        encoder: from images to features ``(batch, features)``, such as a ``pretrained_encoder``.

    Raises:
        ValueError: the encoder does not say how many features it returns.

    Example:
    ```python
    model = frozen(resnet(10, (32, 32, 3), stem="patch", width=4, include_preprocessing=True))
    rows = model.predict(photos.ordered())
    print(retrieve(rows, photos, rows, photos, k=3).names()[0])
    ```
    """
    shape: Any = getattr(encoder, "output_shape", None) or (None,)
    require(
        shape[-1] is not None,
        f"an encoder {getattr(encoder, 'name', type(encoder).__name__)!r} of unknown output",
        "one with an output_shape (None, features)",
        "Build it first, or wrap it: keras.Sequential([keras.Input((64, 64, 3)), encoder]).",
    )
    return EmbeddingModel(encoder, shape[-1], keras.layers.Identity())
