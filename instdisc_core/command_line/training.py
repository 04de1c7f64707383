"""Commands that embed images: train, index, embed; and the recipes."""

import time
from pathlib import Path
from typing import Any, Literal, cast

import click
import keras
import numpy as np

from instdisc_core import recipes
from instdisc_core.command_line.found import Found
from instdisc_core.command_line.group import answer, json_option, shown, shows_bars, working
from instdisc_core.data import ImageFolder, ImageSource
from instdisc_core.data.names import printable
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import whitened
from instdisc_core.exports.export import check_export
from instdisc_core.exports.formats import TABLE_FORMATS, format_of
from instdisc_core.exports.tables import write_table
from instdisc_core.index import ImageIndex
from instdisc_core.index.files import load_encoder
from instdisc_core.recipes import Recipe, RecipeName
from instdisc_core.validation import require

SAVE_EVERY = 200  # steps; and each epoch


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--output", "-o", default="found", help="Folder to write to.")
@click.option("--minutes", "-m", default=10.0, help="How long; a recipe is chosen for that.")
@click.option("--recipe", "name", help="Instead of one that is chosen; see 'instdisc recipes'.")
@click.option("--epochs", type=click.IntRange(1), help="With --recipe: instead of its own.")
@click.option("--size", type=click.IntRange(8), help="With --recipe: side of the images.")
@click.option("--seed", default=0, help="Of everything that is drawn.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@json_option
def train(
    folder: str,
    output: str,
    minutes: float,
    name: str | None,
    epochs: int | None,
    size: int | None,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Learn an embedding of the images in FOLDER, and index them by it.

    Broken files are left out and named. Interrupted, the same command continues; when all is done,
    it says what is there.

    \b
    Examples:
      instdisc train photos/
      instdisc train photos/ --output found --minutes 30
      instdisc train photos/ --recipe small-cifar10 --epochs 50 --size 64
    """
    found, start = Found(output), time.perf_counter()
    with working():
        found.check(Path(folder))
        if name is None:
            require(epochs is None and size is None, "--epochs or --size", "--recipe with them")
            recipe = recipes.for_images(folder, minutes, found.folder, verbose=not quiet)
        else:
            recipe = _recipe(name, epochs, size)
        photos = _photos(Path(folder), recipe.image_size, found)
        found.claim(Path(folder))
        if not found.manifest.exists():
            photos.manifest.save(found.manifest)
        distinct = _distinct(photos)
        is_trained = found.model.exists()
        if is_trained:
            recipes.claim(found.folder, recipe, seed, distinct.manifest)
            model = keras.saving.load_model(found.model)
        else:
            verbose = _verbose(quiet)
            long = len(distinct) >= SAVE_EVERY * recipe.batch_size
            model = recipe.train(
                distinct,
                found.folder,
                seed,
                verbose=verbose,
                save_freq=SAVE_EVERY if long else "epoch",
            )
        is_indexed = is_trained and found.has_index
        if not is_indexed:
            index = ImageIndex.from_model(
                whitened(model, distinct), photos, verbose=shows_bars(quiet)
            )
            index.save(found.index_folder)
    result = {
        "output": output,
        "photos": len(photos),
        "copies": len(photos) - len(distinct),
        "skipped": len(photos.manifest.skipped),
        "epochs": recipe.epochs,
        "trained": not is_trained,
        "seconds": round(time.perf_counter() - start, 1),
    }
    place = printable(output)
    done = "was there already" if is_trained else f"took {result['seconds']:.0f} s"
    text = f"{place} holds a model and an index of {len(photos)} photos; the training {done}.\n"
    text += f"Next: instdisc serve {place}"
    answer(as_json, result, lambda: click.echo(text))


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--output", "-o", default="found", help="Folder with the index, or for a new one.")
@click.option("--model", "-m", help="For a new index: a folder that train wrote, or a .keras file.")
@click.option("--size", type=click.IntRange(8), help="Of the images, for a .keras file.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@json_option
def index(
    folder: str, output: str, model: str | None, size: int | None, quiet: bool, as_json: bool
) -> None:
    """Add the new images in FOLDER to an index, or build one with a trained model.

    A .keras file may hold any encoder, such as one of keras.applications; nothing is trained.

    \b
    Examples:
      instdisc index photos/ --output found             photos that came after the training
      instdisc index other/ --model found --output other-found
      instdisc index photos/ --model mobilenet.keras --size 224 --output found
    """
    found = Found(output)
    with working():
        found.check(Path(folder))
        if found.has_index:
            require(model is None, f"--model, and {output}, which has an index", "one of them")
            known = found.index()
            photos = _photos(Path(folder), found.size(known))
            added = known.add(photos, verbose=shows_bars(quiet))
        else:
            known = _new_index(Path(folder), model, size, shows_bars(quiet))
            added = len(known)
            found.claim(Path(folder))
        if added:
            known.save(found.index_folder)
    result = {"output": output, "photos": len(known), "added": added}
    text = f"{printable(output)} indexes {len(known)} photos; {added} are new."
    answer(as_json, result, lambda: click.echo(text))


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--index", "-i", "found", default="found", help="Folder that train or index wrote.")
@click.option("--output", "-o", default="embeddings.npz", help="File: .npz, .csv or .parquet.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@json_option
def embed(folder: str, found: str, output: str, quiet: bool, as_json: bool) -> None:
    """Write the embeddings of the images in FOLDER to a file.

    \b
    Examples:
      instdisc embed new/ --index found --output new.npz
      instdisc embed new/ --output new.parquet
    """
    with working():
        check_export(output, format_of(output, among=TABLE_FORMATS))
        known = Found(found).index()
        photos = _photos(Path(folder), Found(found).size(known))
        rows = known.embed(photos, verbose=shows_bars(quiet))
        write_table(Path(output), {"name": photos.names, "vector": rows})
    result = {"output": output, "photos": len(photos), "embedding_dim": rows.shape[1]}
    text = f"{printable(output)} holds {len(photos)} embeddings of {rows.shape[1]} numbers."
    answer(as_json, result, lambda: click.echo(text))


@click.command("recipes")
@click.argument("name", required=False)
@json_option
def recipe_list(name: str | None, as_json: bool) -> None:
    """List the recipes that train can follow, or all settings of the one called NAME.

    \b
    Examples:
      instdisc recipes
      instdisc recipes small-cifar10
    """
    if name is not None:
        recipe = _named(name)
        return answer(as_json, recipe.to_dict(), lambda: click.echo(str(recipe)))
    found = [recipes.get(each) for each in recipes.names()]
    rows: list[Any] = [(r.name, r.image_size, r.epochs, r.source) for r in found]
    header = ("recipe", "pixels", "epochs", "source")
    return answer(as_json, [r.to_dict() for r in found], lambda: shown(header, rows))


def _recipe(name: str, epochs: int | None, size: int | None) -> Recipe:
    """The recipe of this name with what the options change."""
    recipe = _named(name)
    changes: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if size is not None:
        crop = recipe.crop_size * size // recipe.image_size
        changes |= {"image_size": size, "crop_size": crop}
    return _named(name, **changes)


def _named(name: str, **changes: Any) -> Recipe:
    """See ``recipes.get``, which checks the name."""
    return recipes.get(cast(RecipeName, name), **changes)


def _photos(folder: Path, size: int | tuple[int, int], found: Found | None = None) -> ImageFolder:
    """The images of a folder, copies too; in the order of a manifest where there is one."""
    known = found.manifest if found is not None and found.manifest.exists() else None
    return ImageFolder(folder, size, "skip", "keep", manifest=known)


def _distinct(photos: ImageFolder) -> ImageSource:
    """The photos without copies: the objective would push each away from its copy."""
    first = np.unique(photos.manifest.digests, return_index=True)[1]
    return photos if len(first) == len(photos) else photos.subset(np.sort(first))


def _new_index(folder: Path, model: str | None, size: int | None, verbose: bool) -> ImageIndex:
    """An index of a folder by an encoder that is trained already."""
    if model is None:
        raise ValueError("A new index needs --model; 'instdisc train' trains one.")
    if not model.endswith(".keras"):
        known = Found(model).index()
        photos = _photos(folder, Found(model).size(known))
        rows = known.embed(photos, verbose=verbose)
        return ImageIndex(rows, photos, known.model, mirror=known.mirror)
    encoder = load_encoder(model)
    sides = getattr(encoder, "input_shape", (None,) * 3)[1:3]
    if size is None and None in sides:
        raise ValueError(f"{printable(model)} takes images of any size: say which with --size.")
    photos = _photos(folder, tuple(sides) if size is None else size)
    if not isinstance(encoder, EmbeddingModel):
        return ImageIndex.from_encoder(encoder, photos, verbose=verbose)
    return ImageIndex.from_model(whitened(encoder, photos), photos, verbose=verbose)


def _verbose(quiet: bool) -> Literal["auto", 0, 1, 2]:
    """Of ``fit``: a bar on a terminal, a line for each epoch elsewhere."""
    return 1 if shows_bars(quiet) else 0 if quiet else 2
