"""The code of the guides runs, at toy size, as a reader would run it."""

import sys
from pathlib import Path

import keras
import pytest
from reader import ONE_EPOCH, PHOTOS, Reader

sys.path.append(str(Path(__file__).parents[1] / "docs"))

import guides

BACKEND = keras.backend.backend()
PATHS = sorted((Path(__file__).parents[1] / "docs" / "guides").glob("*.py"))
TWO_EPOCHS = ("range(20)", "range(2)")
WIDTHS = ("width=32", "width=16")
# The framework that runs a guide, and what is changed in it. Other tests run the same on each; the
# guide to many devices is another script on each.
CHANGES = {
    "adding_an_objective": ("torch", [WIDTHS, ("epochs=20", "epochs=1")]),
    "first_embeddings": ("torch", [ONE_EPOCH, ('"knn", "linear"', '"knn"')]),
    "flax_optax_loop": ("jax", [TWO_EPOCHS, WIDTHS]),
    "many_devices": (BACKEND, []),
    "near_duplicates": ("torch", [ONE_EPOCH]),
    "pretrained_encoders": (
        "torch",
        [ONE_EPOCH, ("=64", "=32"), ("mobilenet.h5", "mobilenet.weights.h5")],
    ),
    "torch_loop": ("torch", [TWO_EPOCHS, WIDTHS]),
}
WRITTEN = {
    "adding_an_objective": ["model.keras"],
    "first_embeddings": ["photos.csv", "found/log.png", "found/neighbors.html", "found/tsne.png",
                         "found/index/index.json", "report/report.txt"],
    "near_duplicates": ["table.csv"],
    "pretrained_encoders": ["adapted/model.keras", "adapted/verdict.txt", "encoder.pt2"],
}  # fmt: skip


def test_every_guide_is_run():
    assert sorted(CHANGES) == [path.stem for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_guide_runs(path, tmp_path):
    backend, changes = CHANGES[path.stem]
    if backend != BACKEND:
        pytest.skip(f"{backend} runs it")
    reader = Reader(tmp_path, {path.name: guides.code(guides.read(path))})
    if path.stem == "pretrained_encoders":
        network = keras.applications.MobileNet(
            alpha=0.25, include_top=False, weights=None, pooling="avg"
        )
        network.save_weights(tmp_path / "mobilenet.weights.h5")
    printed = reader.run(path.name, *changes)
    assert reader.wrote(*WRITTEN.get(path.stem, []))
    if path.stem in ("first_embeddings", "torch_loop", "flax_optax_loop"):
        named = [name for name in reader.names("photos") if f"'{name}'" in printed]
        assert len(named) >= min(3, PHOTOS), "neighbors by name"
    if path.stem == "many_devices":
        assert float(printed.split("largest difference of two banks:")[1].split()[0]) < 1e-4


@pytest.mark.framework_independent
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_guide_is_short_and_says_what_it_is(path):
    guide = guides.read(path)
    assert len(path.read_text().splitlines()) <= 300
    assert all(guide.header.values())
    kinds = [kind for kind, _ in guide.cells]
    assert {"text", "code"} == set(kinds)


@pytest.mark.framework_independent
def test_pages_and_notebooks_have_all_of_a_guide(tmp_path):
    header = "".join(f"{name}: about {name}\n" for name in guides.HEADER)
    path = tmp_path / "example.py"
    path.write_text(
        f'"""\n{header}"""\n\n"""\n# One\n\n```\nx\n```\n"""\n\nx = 1\n"""\nTwo\n"""\ny = """t"""\n'
    )
    guide = guides.read(path)
    first, *others = guide.cells
    assert first == ("text", "# One\n\n```\nx\n```")
    assert others == [("code", "x = 1"), ("text", "Two"), ("code", 'y = """t"""')]
    assert guides.code(guide) == 'x = 1\n\ny = """t"""\n'
    page = guides.page(guide)
    assert page.startswith("# about Title\n\nabout Description\n")
    assert "\n```python\nx = 1\n```\n\nTwo\n" in page
    path.write_text('"""\nTitle: Alone\n"""\n')
    with pytest.raises(ValueError, match="the header is Title, not Title, Author"):
        guides.read(path)
