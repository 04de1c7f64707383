"""Commands that embed images with an encoder that is there: index and embed."""

from pathlib import Path

import click

from instdisc_core.command_line.found import MOST, Found, read_photos
from instdisc_core.command_line.group import answer, json_option, shows_bars, working
from instdisc_core.data.names import printable
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import whitened
from instdisc_core.exports.export import check_export
from instdisc_core.exports.formats import TABLE_FORMATS, format_of
from instdisc_core.exports.tables import write_table
from instdisc_core.index import ImageIndex
from instdisc_core.index.files import load_encoder
from instdisc_core.recipes import Recipe
from instdisc_core.recipes.run_folder import stored_settings
from instdisc_core.validation import require


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
    """Bring the index of FOLDER up to date, or build one with a trained model.

    New images are added, changed ones are embedded again, and deleted ones are left out.
    A .keras file may hold any encoder, such as one of keras.applications; nothing is trained.
    An index that is damaged is built again with the model next to it, or with --model.

    \b
    Examples:
      instdisc index photos/ --output found             photos that came after the training
      instdisc index other/ --model found --output other-found
      instdisc index photos/ --model mobilenet.keras --size 224 --output found
    """
    found = Found(output)
    with working():
        found.check(Path(folder), MOST)
        known = found.whole_index()
        if known is not None:
            require(model is None, f"--model, and {output}, which has an index", "one of them")
            photos, before = read_photos(Path(folder), _side(found, known, size)), len(known)
            added = known.add(photos, verbose=shows_bars(quiet), drop=True)
            gone = before + added - len(known)
        else:
            own = str(found.model) if found.model.exists() else None
            known = _new_index(Path(folder), model or own, size, shows_bars(quiet))
            added, gone = len(known), 0
        if added or gone:
            known.save(found.index_folder)
        found.claim(Path(folder))
    result = {"output": output, "photos": len(known), "added": added, "removed": gone}
    text = f"{printable(output)} indexes {len(known)} photos; {added} are new, {gone} are gone."
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
        place = Found(found)
        place.check_output(output)
        known = place.index()
        photos = read_photos(Path(folder), place.size(known))
        rows = known.embed(photos, verbose=shows_bars(quiet))
        write_table(Path(output), {"name": photos.names, "vector": rows})
    result = {"output": output, "photos": len(photos), "embedding_dim": rows.shape[1]}
    text = f"{printable(output)} holds {len(photos)} embeddings of {rows.shape[1]} numbers."
    answer(as_json, result, lambda: click.echo(text))


def _new_index(folder: Path, model: str | None, size: int | None, verbose: bool) -> ImageIndex:
    """An index of a folder by an encoder that is trained already."""
    if model is None:
        raise ValueError("A new index needs --model; 'instdisc train' trains one.")
    if not model.endswith(".keras"):
        known = Found(model).index()
        photos = read_photos(folder, _side(Found(model), known, size))
        rows = known.embed(photos, verbose=verbose)
        return ImageIndex(rows, photos, known.model, mirror=known.mirror)
    encoder = load_encoder(model)
    sides = getattr(encoder, "input_shape", (None,) * 3)[1:3]
    trained = stored_settings(Path(model).parent)
    if size is None and None in sides and trained is not None:
        size = trained["image_size"]
    elif size is None and None in sides:
        raise ValueError(f"{printable(model)} takes images of any size: say which with --size.")
    photos = read_photos(folder, tuple(sides) if size is None else size)
    if not isinstance(encoder, EmbeddingModel):
        return ImageIndex.from_encoder(encoder, photos, verbose=verbose)
    mirror = trained is None or Recipe(**trained).mirrors
    return ImageIndex.from_model(whitened(encoder, photos), photos, mirror, verbose=verbose)


def _side(found: Found, known: ImageIndex, size: int | None) -> tuple[int, int]:
    """Height and width of the images that an index embeds; raise if other ones are asked for."""
    sides = found.size(known)
    require(
        size is None or sides == (size, size),
        f"--size {size}, and an index of images of {sides[0]} x {sides[1]} pixels",
        "its own size",
        "Leave --size out.",
    )
    return sides
