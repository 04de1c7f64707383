"""Instance discrimination with Keras's own `fit`, on whichever framework you have.

    python examples/train_keras.py                                   # Keras's default backend
    KERAS_BACKEND=jax python examples/train_keras.py --epochs 10
    KERAS_BACKEND=torch python examples/train_keras.py --data path/to/images --objective nce

`InstanceDiscrimination` holds the encoder, the memory bank and the objective. It is a Keras model
like any other: compile it with an optimizer, and give `fit` the index of each image as its target.
"""

import common
import keras
import numpy as np

from instdisc_core import InstanceDiscrimination
from instdisc_core.callbacks import KNNEvaluation


def main():
    """Train, then report."""
    args = common.parse_arguments(__doc__)
    keras.utils.set_random_seed(args.seed)
    images = common.load_images(args.data, args.image_size, args.seed)

    model = InstanceDiscrimination(
        common.build_encoder(images.train.shape[1:]),
        num_instances=len(images.train),
        embedding_dim=args.embedding_dim,
        objective=common.build_objective(args.objective, args.temperature, args.seed),
        augmenter=common.RandomAffine(seed=args.seed),
        seed=args.seed,
    )
    model.compile(optimizer=keras.optimizers.Adam(args.learning_rate))

    # Labels are for watching only. They are the test set's too: choose nothing by this number.
    callbacks = []
    if images.test is not None:
        k = min(10, len(images.train))
        callbacks = [KNNEvaluation(images.test, images.test_labels, images.train_labels, k=k)]
    model.fit(
        images.train,
        np.arange(len(images.train)),
        batch_size=args.batch_size,
        epochs=args.epochs,
        callbacks=callbacks,
    )

    common.report(lambda batch: model.predict(batch, verbose=0), images, model.memory_bank)


if __name__ == "__main__":
    main()
