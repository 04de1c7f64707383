"""What the demonstration on handwritten digits measured, in Markdown."""

import json
from pathlib import Path

from performance_tables import markdown

DOCS = Path(__file__).parent


def digits_table():
    """The demonstration's table and how it was obtained, in Markdown."""
    results = json.loads((DOCS / "digits" / "results.json").read_text())
    rows = [
        (
            name,
            f"{score['knn']:.3f}",
            f"{score['one_label']:.3f} ± {score['one_label_std']:.3f}",
            f"{score['clustering']:.3f}",
        )
        for name, score in results["scores"].items()
    ]
    versions = results["versions"]
    lines = [
        markdown(("", "kNN, all labels", "one label per class", "k-means clustering"), rows),
        "",
        f"Accuracies. Trained on {results['num_train']:,} digits without their labels for "
        f"{results['epochs']} epochs, {results['seconds']['training']:.0f} s on two CPU cores "
        f"({results['backend']} {versions[results['backend']]}, Keras {versions['keras']}); judged "
        f"on {results['num_held_out']} held-out ones, clustering on all. One label per class: mean "
        "and standard deviation over 50 draws of the ten labels. Raw pixels and the untrained "
        "encoder have the training mean subtracted wherever that scores better.",
        "",
        f"The table is seed {results['seed']}. {seeds_sentence()} Network, augmentation and "
        "learning rate were chosen while looking at these digits, so read it as a demonstration, "
        "not as a benchmark. With all labels, raw pixels do as well: digits are that easy.",
    ]
    return "\n".join(lines)


def seeds_sentence():
    """The range of every stored seed's scores, learned against raw."""
    stored = [json.loads(p.read_text()) for p in sorted((DOCS / "digits").glob("results*.json"))]

    def spread(name, score):
        values = [one["scores"][name][score] for one in stored]
        return f"{min(values):.3f}-{max(values):.3f}"

    kinds = {"knn": "kNN", "one_label": "one label", "clustering": "clustering"}
    parts = [
        f"{kind} {spread('learned embedding', score)} against {spread('raw pixels', score)}"
        for score, kind in kinds.items()
    ]
    seeds = ", ".join(str(seed) for seed in sorted(one["seed"] for one in stored))
    return f"Learned against raw pixels over seeds {seeds}: {'; '.join(parts)}."
