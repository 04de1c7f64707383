"""The command that trains, and the recipes."""

import shlex
import time
from pathlib import Path
from typing import Any, Literal, cast

import click
import keras
import numpy as np

from instdisc_core import recipes
from instdisc_core.command_line.found import Found, read_photos
from instdisc_core.command_line.group import answer, json_option, shown, shows_bars, working
from instdisc_core.data import ImageFolder, ImageSource
from instdisc_core.data.names import printable
from instdisc_core.evaluation import whitened
from instdisc_core.index import ImageIndex
from instdisc_core.recipes import Recipe, RecipeName
from instdisc_core.validation import require

SAVE_EVERY = 200  # steps; and each epoch
SEEDS = click.IntRange(0, 2**32 - 1)  # that NumPy takes


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--output", "-o", default="found", help="Folder to write to.")
@click.option("--minutes", "-m", type=float, help="How long: 10; a recipe is chosen for that.")
@click.option("--recipe", "name", help="Instead of one that is chosen; see 'instdisc recipes'.")
@click.option("--epochs", type=click.IntRange(1), help="With --recipe: instead of its own.")
@click.option("--size", type=click.IntRange(8), help="With --recipe: side of the images.")
@click.option("--seed", default=0, type=SEEDS, help="Of everything that is drawn.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@json_option
def train(
    folder: str,
    output: str,
    minutes: float | None,
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
            require(minutes is None, f"--minutes and --recipe {name}", "one of them, or --epochs")
            recipe = _recipe(name, epochs, size)
        with found.advice("To train on what is there now, choose another --output."):
            photos = read_photos(Path(folder), recipe.image_size, found)
        distinct = _distinct(photos)
        found.claim(Path(folder))
        if not found.manifest.exists():
            photos.manifest.save(found.manifest)
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
        if is_trained and found.has_index:
            found.index()  # raises where it is damaged
        else:
            index = ImageIndex.from_model(
                whitened(model, distinct),
                photos,
                mirror=recipe.mirrors,
                verbose=shows_bars(quiet),
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
    done = "was there already" if is_trained else f"took {result['seconds']:.0f} s"
    text = f"{printable(output)} holds a model and an index of {found.num_photos} photos; the "
    text += f"training {done}.\nNext: instdisc serve {printable(shlex.quote(output))}"
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


def _distinct(photos: ImageFolder) -> ImageSource:
    """The photos without copies: the objective would push each away from its copy."""
    first = np.unique(photos.manifest.digests, return_index=True)[1]
    skipped = len(photos.manifest.skipped)
    require(
        len(first) > 1,
        f"{len(photos)} photos, {len(photos) - len(first)} of them copies, and {skipped} files "
        "that cannot be read",
        "at least 2 different photos to train on",
    )
    return photos if len(first) == len(photos) else photos.subset(np.sort(first))


def _verbose(quiet: bool) -> Literal["auto", 0, 1, 2]:
    """Of ``fit``: a bar on a terminal, a line for each epoch elsewhere."""
    return 1 if shows_bars(quiet) else 0 if quiet else 2
