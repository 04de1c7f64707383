"""Table 1 of Wu et al.: the objectives compared on CIFAR-10, by SVM and by nearest neighbors.

    KERAS_BACKEND=torch python -m benchmarks.table1                           # the paper's: a GPU
    KERAS_BACKEND=torch python -m benchmarks.table1 --budget --data cifar10   # two processor cores

One JSON file for each row and seed, under `results/table1-...`. A row that is stored is not run
again, and one that was interrupted continues after its last whole epoch.
"""

from benchmarks import cifar, harness

NCE = "nce"
ROWS = {  # the paper's rows, and their changes to the recipe
    "untrained": {"epochs": 0},
    "exact": {"objective": "non_parametric_softmax"},
    "nce-4096": {"objective": NCE, "objective_settings": (("num_negatives", 4096),)},
    "nce-512": {"objective": NCE, "objective_settings": (("num_negatives", 512),)},
    "nce-10": {"objective": NCE, "objective_settings": (("num_negatives", 10),)},
    "nce-1": {"objective": NCE, "objective_settings": (("num_negatives", 1),)},
    "parametric": {"objective": "parametric_softmax"},
}


def main():
    """Run the rows whose results are missing, and print the table."""
    parser = harness.parser(__doc__)
    cifar.add_arguments(parser)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()

    cifar.run_rows("table1", [(row, ROWS[row]) for row in args.rows], args)


if __name__ == "__main__":
    main()
