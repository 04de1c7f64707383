"""Writes the numbers of stored results into the documents.

    python docs/render.py            # the tables, and the plots
    python docs/render.py --check    # only checks that the tables show the stored results

A table is between ``<!-- name -->`` and ``<!-- /name -->`` in a document.
"""

import re
import sys
from pathlib import Path

import digits_tables
import experiment_tables
import folder_tables
import methods_tables
import near_duplicates_tables
import newcomer_tables
import other_tools_tables
import performance_tables
import reliability_tables
import scale_tables
import verdict_tables

DOCS = Path(__file__).parent
PAGES = (
    "performance.md",
    "experiments.md",
    "methods.md",
    "reliability.md",
    "near_duplicates.md",
    "comparison.md",
    "scale.md",
)
DOCUMENTS = (DOCS.parent / "README.md", *(DOCS / page for page in PAGES))
TABLES = {
    "digits": digits_tables.digits_table,
    "speed": performance_tables.summary,
    "endtoend": performance_tables.endtoend,
    "encoders": performance_tables.encoders,
    "objectives": performance_tables.objectives,
    "gpu": performance_tables.gpu,
    "attention": performance_tables.attention,
    "scaling": performance_tables.scaling,
    "search": performance_tables.search,
    "fewqueries": performance_tables.few_queries,
    "onequery": performance_tables.one_query,
    "updates": performance_tables.updates,
    "storage": performance_tables.storage,
    "samplers": performance_tables.samplers,
    "step": performance_tables.step,
    "machines": performance_tables.machines,
    "table1": experiment_tables.table1,
    "frameworks": experiment_tables.frameworks,
    "ablations": experiment_tables.ablations,
    "folders": folder_tables.folders,
    "photos": folder_tables.summary,
    "fewlabels": folder_tables.few_labels,
    "clusters": folder_tables.clusters,
    "rivals": folder_tables.rivals,
    "handedness": folder_tables.handedness,
    "colors": folder_tables.colors,
    "sizes": folder_tables.sizes,
    "methods": methods_tables.methods,
    "methodsondigits": methods_tables.methods_on_digits,
    "loader": experiment_tables.loader,
    "beaten": methods_tables.pixels_beaten,
    "nearduplicates": near_duplicates_tables.near_duplicates,
    "alterations": near_duplicates_tables.alterations,
    "allpairs": near_duplicates_tables.all_pairs,
    "newcomer": newcomer_tables.newcomer,
    "othertools": other_tools_tables.other_tools,
    "verdict": verdict_tables.verdict,
    "tasks": verdict_tables.tasks,
    "pretrained": verdict_tables.pretrained,
    "kills": reliability_tables.kills,
    "otherfaults": reliability_tables.other_faults,
    "faultyfiles": reliability_tables.files,
    "checkpointcost": reliability_tables.checkpoint_cost,
    "places": scale_tables.places,
    "large": scale_tables.large,
    "scalechecks": scale_tables.scale_checks,
    "bankmemory": scale_tables.bank_memory,
    "ranktraffic": scale_tables.rank_traffic,
    "steptimes": scale_tables.step_times,
}


def rendered(text):
    """The document with every table between its marks rendered again."""
    return re.sub(
        r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)",
        lambda marks: f"{marks[1]}{TABLES[marks[2]]()}\n{marks[3]}",
        text,
        flags=re.DOTALL,
    )


def main():
    """Render, or check."""
    stale = {
        path: new for path in DOCUMENTS if (new := rendered(path.read_text())) != path.read_text()
    }
    if "--check" in sys.argv:
        if stale:
            names = ", ".join(path.name for path in stale)
            sys.exit(f"{names}: not the stored results. Run: python docs/render.py")
        return
    for path, new in stale.items():
        path.write_text(new)
    performance_tables.plot_scaling(DOCS / "scaling.png")
    experiment_tables.plot_experiments(DOCS / "experiments.png")
    methods_tables.plot_methods(DOCS / "methods.png")


if __name__ == "__main__":
    main()
