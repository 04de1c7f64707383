"""One object to search: built from a model and images, searched by others, saved and loaded."""

import os
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.bank_ops import BankOps
from instdisc_core.data import ImageArray, ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import Retrieval, positions_in, retrieve
from instdisc_core.index import files
from instdisc_core.index.embedded_images import EmbeddedImages
from instdisc_core.index.embedder import embedded, mirrored_embeddings
from instdisc_core.index.manifests import changes, joined
from instdisc_core.types import SearchResult, Tensor
from instdisc_core.validation import check_features, require


class ImageIndex(EmbeddedImages):
    """Embeddings of images, to find similar ones, near duplicates, odd ones and clusters.

    ``from_model`` and ``from_encoder`` embed the images; ``load`` reads a saved index. Everything
    is computed in blocks: the memory in use grows with the number of images, not with its square.

    Args:
        rows: unit embeddings ``(n, embedding_dim)``, one for each image.
        images: their ImageSource; or its Manifest, without the size of the images.
        model: the EmbeddingModel that the rows are from; with None the index embeds no images.
        backend: see ``registry.get_bank_ops``.
        mirror: whether a row is of an image and its mirror image together; see ``from_model``.

    Attributes:
        rows: float32 ``(n, embedding_dim)``; read-only.
        manifest: the Manifest: image ``i`` is ``manifest.names[i]``.
        model: an EmbeddingModel of preprocessing, encoder and projector, without a bank; or None.
        size: ``(height, width)`` of the images that it embeds, or None where it is not known.

    Raises:
        ValueError: rows that are not finite or not of length 1, or of another number than the
            images.

    Example:
    ```python
    index = ImageIndex.from_model(model, photos)
    scores, neighbors = index.search(test, k=5)
    print([index.names[j] for j in neighbors[0]])
    index.save("found")
    ```
    """

    @classmethod
    def from_model(
        cls,
        model: EmbeddingModel,
        images: ImageSource,
        mirror: bool = True,
        batch_size: int = 256,
        backend: str | BankOps | None = None,
        verbose: bool = False,
    ) -> "ImageIndex":
        """Embed images with a trained model, without augmentation.

        Args:
            model: an EmbeddingModel; ``evaluation.whitened(model, images)`` finds more. The index
                shares its encoder, and raises an error if that is trained further.
            images: their ImageSource, of the training images or of others.
            mirror: embed the mirror image too, and take the sum of both, as a unit row. Then an
                image and its mirror image are the same. False takes half the time, and is better
                where the training did not mirror, as ``recipe.mirrors`` says.
            batch_size: images at a time.
            backend: see ``registry.get_bank_ops``.
            verbose: show a progress bar.

        Example: ``index = ImageIndex.from_model(model, photos)``
        """
        rows = mirrored_embeddings(model, images, mirror, batch_size, verbose)
        return cls(rows, images, model, backend, mirror)

    @classmethod
    def from_encoder(
        cls,
        encoder: Any,
        images: ImageSource,
        preprocessing: keras.layers.Layer | Literal["torch"] | None = None,
        center: bool = True,
        mirror: bool = True,
        batch_size: int = 256,
        backend: str | BankOps | None = None,
        verbose: bool = False,
    ) -> "ImageIndex":
        """Embed images with an encoder that was trained elsewhere, or not at all.

        Args:
            encoder, preprocessing: see ``EmbeddingModel``.
            images: their ImageSource.
            center: subtract the mean of these images' features from all. Without it, features
                that are never negative, as those of most networks, are all alike.
            mirror, batch_size, backend, verbose: see ``from_model``.

        Example: ``index = ImageIndex.from_encoder(encoder, photos)``
        """
        require(
            not center or len(images) > 1, "one image and center=True", "several", "center=False"
        )
        rows, model = embedded(encoder, images, preprocessing, center, mirror, batch_size, verbose)
        return cls(rows, images, model, backend, mirror)

    def search(self, queries: ImageSource | Tensor, k: int = 10) -> SearchResult:
        """The ``k`` images most similar to each query, best first.

        An image does not find itself. It is itself by its data: the name and the bytes of an
        ImageSource's image, see ``evaluation.positions_in``; the pixels of an array's.

        Args:
            queries: an ImageSource; pixels, uint8 ``(q, height, width, 3)``; or unit embeddings
                ``(q, embedding_dim)``.
            k: number of neighbors, at most ``n``, or ``n - 1`` where a query is in the index.

        Returns:
            A SearchResult of cosines and indices, NumPy arrays ``(q, k)``.

        Raises:
            ValueError: ``k`` out of its range, embeddings of another width or not finite; and as
                ``embed``.

        Example: ``ImageIndex.from_model(model, photos).search(images[:2], k=3).indices``
        """
        if isinstance(queries, ImageSource):
            return self._nearest(self.embed(queries), k, positions_in(self.manifest, queries))
        queries = queries if hasattr(queries, "shape") else np.asarray(queries, "float32")
        if len(queries.shape) == 2:
            rows = check_features(queries, self.rows.shape[1], finite=True)
            return self._nearest(ops.convert_to_numpy(rows), k, np.full(len(rows), -1))
        source = ImageArray(queries)
        known = {content: j for j, content in enumerate(self.manifest.digests) if content}
        own = np.array([known.get(content, -1) for content in source.manifest.digests])
        return self._nearest(self.embed(source), k, own)

    def retrieve(
        self,
        queries: ImageSource,
        gallery: ImageSource,
        k: int = 10,
        indices: ArrayLike | None = None,
    ) -> Retrieval:
        """``search`` with pictures: a Retrieval, which is drawn and saved as a page.

        Args:
            queries, k, indices: see ``evaluation.retrieve``.
            gallery: the ImageSource of the images in the index.

        Raises:
            ValueError: ``gallery`` holds other images than the index; and as ``search``.

        Example: ``ImageIndex.from_model(model, photos).retrieve(test, photos, k=3).names()``
        """
        self.manifest.check(gallery.manifest, "a gallery")
        same = queries.manifest is gallery.manifest
        rows = self.rows if same else self.embed(queries)
        return retrieve(rows, queries, self.rows, gallery, k, indices, self._backend)

    def add(
        self, images: ImageSource, batch_size: int = 256, verbose: bool = False, drop: bool = False
    ) -> int:
        """Add the images that are not in the index yet; the rows that it has keep their bits.

        Args:
            images: an ImageSource; it may be the same folder with new files. Images of the same
                name and bytes as one in the index are left out.
            batch_size, verbose: see ``from_model``.
            drop: leave out what is not among ``images``: deleted files, and those that were
                changed, which are then added as new ones.

        Returns:
            How many were added.

        Raises:
            ValueError: without ``drop``, an image has a name of the index and other bytes; and as
                ``embed``.

        Example: ``ImageIndex(embeddings, photos).add(photos)  # 0: they are in it``
        """
        kept, new = changes(self.manifest, images, drop)
        if not len(new) and len(kept) == len(self):
            return 0
        rows, manifest = self.rows[kept], self.manifest.subset(kept)
        if len(new):
            added = images.subset(new)
            rows = np.concatenate([rows, self.embed(added, batch_size, verbose)])
            manifest = joined(manifest, added.manifest)
        self._take(rows, manifest)
        return len(new)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the index to a folder; one that is there is replaced whole or not at all.

        The folder holds ``rows-1.safetensors``, ``manifest-1.csv``, ``encoder-1.keras``, and
        ``index.json`` with their names and BLAKE2b digests. The number rises when the index is
        saved again. None is a pickle: a ``torch.nn.Module`` is left out, with a warning.

        Args:
            folder: its path; it is created if it does not exist.

        Raises:
            ValueError: another process is writing to the folder.
            ImportError: safetensors is not installed (``pip install 'instdisc-core[index]'``).

        Example:
        ```python
        import json, pathlib

        ImageIndex.from_model(model, photos).save("found")
        folder = pathlib.Path("found")  # from here on, the rows with NumPy alone
        about = json.loads((folder / "index.json").read_text())
        data = (folder / about["rows"]["file"]).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        rows = np.frombuffer(data, "<f4", offset=start).reshape(about["images"], -1)
        ```
        """
        parts = self.rows, self.manifest, self.model, self.size, self.mirror, self._weights
        files.write(folder, files.Stored(*parts))

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        model: EmbeddingModel | None = None,
        backend: str | BankOps | None = None,
    ) -> "ImageIndex":
        """Read what ``save`` wrote, after every file is verified.

        Args:
            folder: its path.
            model: the EmbeddingModel that the rows are from; None is the encoder that was saved.
            backend: see ``registry.get_bank_ops``.

        Raises:
            ValueError: there is no index, it is damaged, or ``model`` has other weights.
            ImportError: as ``save``.

        Example: ``ImageIndex(embeddings, photos).save("rows"); ImageIndex.load("rows")``
        """
        stored = files.read(folder, model)
        index = cls(stored.rows, stored.manifest, stored.model, backend, stored.mirror)
        index.size, index._weights = stored.size, index._weights or stored.weights
        return index
