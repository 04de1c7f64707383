"""The command that writes an index, or its encoder, for other tools."""

import click

from instdisc_core.command_line.found import Found
from instdisc_core.command_line.group import answer, found_argument, json_option, working
from instdisc_core.command_line.questions import THRESHOLD
from instdisc_core.data.names import printable
from instdisc_core.exports.export import check_export, export
from instdisc_core.exports.formats import ENCODER_FORMATS, FORMATS, Format
from instdisc_core.index import DEFAULT_THRESHOLD


@click.command("export")
@found_argument
@click.option("--output", "-o", required=True, help="The file, by whose suffix; or a folder.")
@click.option("--format", "-f", type=click.Choice(FORMATS), help="Instead of the suffix's.")
@click.option("-k", default=10, type=click.IntRange(1), help="Neighbors of each photo.")
@click.option("--clusters", "num_clusters", type=click.IntRange(1), help="Add a column of them.")
@click.option("--threshold", "-t", default=DEFAULT_THRESHOLD, help=THRESHOLD)
@json_option
def export_found(
    found: str,
    output: str,
    format: Format | None,
    k: int,
    num_clusters: int | None,
    threshold: float,
    as_json: bool,
) -> None:
    """Write all photos with embeddings and neighbors, or the encoder, for other tools.

    A table (.parquet, .csv, .npz) has a row for each photo: name, path, vector, neighbors (row
    numbers), distances, near-duplicate group and, if asked for, cluster. .faiss is an index of
    FAISS, and a folder is for TensorBoard's projector. The encoder, from pixels to embeddings, is
    .onnx or .pt2 (on PyTorch), .tflite, or a folder with -f saved-model (on TensorFlow); its
    embeddings are compared with the model's before the file is there.

    \b
    Examples:
      instdisc export found -o photos.parquet --clusters 10
      instdisc export found -o photos.faiss
      instdisc export found -o projector      then: tensorboard --logdir projector
      instdisc export found -o encoder.onnx
      KERAS_BACKEND=tensorflow instdisc export found -o encoder.tflite
    """
    with working():
        chosen = check_export(output, format)
        folder = Found(found)
        folder.check_output(output)
        index = folder.index()
        place = folder.photos_folder()
        export(index, output, chosen, place, k, num_clusters, threshold)
    result = {"output": output, "format": chosen, "photos": len(index)}
    content = f"holds {len(index)} photos"
    if chosen in ENCODER_FORMATS:
        content = "computes the embeddings of the index from pixels"
    answer(as_json, result, lambda: click.echo(f"{printable(output)} {content}."))
