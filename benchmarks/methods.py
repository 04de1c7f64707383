"""The methods compared at equal training time, on the same encoder and images.

    KERAS_BACKEND=torch python -m benchmarks.methods --budget --data cifar10 --costs  # on one core
    KERAS_BACKEND=torch python -m benchmarks.methods --budget --data cifar10

The first command measures a training step of each method, in turn, and stores it. The second trains
each method for the epochs that take `--minutes-each` at this speed, on any device, and stores one
JSON file for each method and seed with its accuracies and their course. A stored method is not
trained again, and one that was interrupted continues after its last whole epoch.
"""

import json
import math
from functools import partial

import keras
import numpy as np

from benchmarks import cifar, harness
from instdisc_core import recipes
from instdisc_core.callbacks import KNNEvaluation

COURSE = 6  # points of the course of the accuracy
QUERIES = 2000  # test images that a point is measured on
HEAD = {"projector": (256,)}
CONTRAST = {
    "objective": "nnclr",
    "views": 2,
    "projector": (256, 256),
    "predictor": (256,),
    "drop_remainder": True,
}
SGD = {"optimizer": "sgd", "learning_rate": 0.03, "weight_decay": 5e-4}


def sampled(objective, **settings):
    """The changes to a recipe for an objective with this many negatives."""
    return {"objective": objective, "objective_settings": tuple(settings.items())}


ROWS = {
    "untrained": {"epochs": 0},
    "exact": {},
    "for-images": {"crop_size": 32},  # as recipes.for_images chooses for images of 32 pixels
    "nce": sampled("nce", num_negatives=4096),
    "info-nce": sampled("info_nce", num_negatives=4096),
    "proximal": sampled("nce", num_negatives=512, proximal_weight=30.0),
    "two-views": {"views": 2},
    "modern": {**HEAD, "views": 2},
    "nnclr": {**CONTRAST, "objective_settings": (("support_set", 4096),)},
    "nnclr-control": {**CONTRAST, "objective_settings": (("support_set", None),)},
    "idfd": {
        "objective": "idfd",
        "temperature": 1.0,
        "objective_settings": (("decorrelation_temperature", 2.0), ("weight", 1.0)),
        "drop_remainder": True,
    },
    "pic": {
        **SGD,
        **HEAD,
        "objective": "pic",
        "temperature": 0.2,
        "objective_settings": (("recent_negatives", 2048),),
        "sliding_window": (1024, 128),
        "drop_remainder": True,
    },
}


def measured_costs(chosen, train, rounds):
    """What these recipes cost: seconds of a training step from a batch in memory, and bytes.

    The bytes are those of all variables: of the network, its rows and its optimizer.
    """
    steps, models = {}, {}
    for name, recipe in chosen.items():
        model = recipe.build(len(train), seed=0)
        indices = np.arange(recipe.batch_size, dtype="int32")
        steps[name] = partial(model.train_on_batch, train.images(indices), indices)
        models[name] = model
    seconds = harness.alternate(steps, rounds, warmups=3)
    return seconds, {name: state_bytes(model) for name, model in models.items()}


def state_bytes(model):
    """Bytes of all variables of a model and of its optimizer."""
    variables = {id(v): v for v in [*model.variables, *model.optimizer.variables]}
    return sum(
        math.prod(v.shape) * np.dtype(keras.backend.standardize_dtype(v.dtype)).itemsize
        for v in variables.values()
    )


def epochs_in(recipe, seconds, step_seconds, images):
    """The epochs that a recipe trains in so many seconds."""
    steps = (math.floor if recipe.drop_remainder else math.ceil)(images / recipe.batch_size)
    return max(1, round(seconds / (steps * step_seconds)))


def main():
    """Measure the costs, or train the rows whose results are missing and print the table."""
    parser = harness.parser(__doc__, rounds=15)
    cifar.add_arguments(parser)
    add = parser.add_argument
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    add("--costs", action="store_true", help="measure a step of each row, and store it")
    add("--costs-of", default="methods-costs-torch-cpu", help="the stored costs to go by")
    add("--minutes-each", type=float, default=7.3, help="of training at the speed of the costs")
    args = parser.parse_args()

    base = "small-cifar10" if args.budget else "modern-cifar10"
    train, _ = cifar.load_for(args)
    trained = {n: recipes.get(base, **ROWS[n]) for n in args.rows if n != "untrained"}
    if args.costs:
        seconds, state = measured_costs(trained, train, args.rounds)
        harness.table(
            ("row", "ms", "MB"),
            [(n, f"{1e3 * s['median']:.0f}", f"{state[n] / 1e6:.1f}") for n, s in seconds.items()],
        )
        harness.write("methods-costs", {"recipe": base, "seconds": seconds, "bytes": state})
        return
    path = harness.RESULTS / f"{args.costs_of}.json"
    stored = json.loads(path.read_text())
    if stored["recipe"] != base:
        raise SystemExit(f"{path} has the costs of {stored['recipe']}, not of {base}: measure them")
    costs = stored["seconds"]
    rows = {name: dict(ROWS[name]) for name in args.rows}
    for name, recipe in trained.items():
        rows[name]["epochs"] = epochs_in(
            recipe, 60 * args.minutes_each, costs[name]["median"], len(train)
        )
    cifar.run_rows("methods", list(rows.items()), args, course=course, base=base)


def course(recipe, train, test):
    """The callback that measures the accuracy over a training, on some of the test images."""
    some = test.subset(np.arange(0, len(test), max(1, len(test) // QUERIES)))
    return KNNEvaluation(
        some,
        some.labels,
        train.labels,
        train,
        k=recipe.num_neighbors,
        temperature=recipe.knn_temperature,
        every=max(1, recipe.epochs // COURSE),
    )


if __name__ == "__main__":
    main()
