"""The effect of one setting at a time on CIFAR-10: the paper's ablations, and those of Z.

    KERAS_BACKEND=torch python -m benchmarks.ablations                           # a GPU
    KERAS_BACKEND=torch python -m benchmarks.ablations --budget --data cifar10   # two cores

Like `benchmarks.table1`: one JSON file for each row and seed, and no stored row is run again.
"""

from benchmarks import cifar, harness

BUDGET = {"epochs": 10, "warmup_epochs": 5}
PARTITIONS = ("first_batches", "moving_average", "exact")


def nce(num_negatives=512, **settings):
    """The changes to a recipe for NCE."""
    pairs = (("num_negatives", num_negatives), *settings.items())
    return {"objective": "nce", "objective_settings": pairs}


ROWS = {
    "base": {"base": {}},  # embedding of 128, all images, momentum of 0.5
    "embedding": {f"embedding-{d}": {"embedding_dim": d} for d in (32, 64, 256)},
    "images": {f"images-{share}": {} for share in (10, 50)},  # percent
    "momentum": {f"momentum-{mu}": {"momentum": mu} for mu in (0.0, 0.9)},
    "proximal": {f"proximal-{w}": nce(proximal_weight=float(w)) for w in (0, 10, 30, 50)},
    # A step with two views of each image takes 1.6 times as long, so there are fewer epochs.
    "views": {"views-1": {"epochs": 25}, "views-2": {"views": 2, "epochs": 15}},
    "partition": {f"partition-{name}": nce(partition=name) for name in PARTITIONS},
}


def rows(names):
    """Name and changes of every row of these ablations."""
    return [row for name in names for row in ROWS[name].items()]


def share_of(row, train):
    """The training images of a row: a tenth for ``images-10``, all for most rows."""
    if not row.startswith("images-"):
        return train
    return cifar.evenly(train, len(train) * int(row.removeprefix("images-")) // 100)


def main():
    """Run the rows whose results are missing, and print the table."""
    parser = harness.parser(__doc__)
    cifar.add_arguments(parser)
    parser.add_argument("--ablations", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()

    budget = BUDGET if args.budget else {}
    chosen = [(row, {**budget, **changes}) for row, changes in rows(args.ablations)]
    cifar.run_rows("ablations", chosen, args, share_of)


if __name__ == "__main__":
    main()
