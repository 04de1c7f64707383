"""Embeddings, which image each is of, and the encoder they are from."""

import os
from functools import cached_property

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.bank_ops import BankOps
from instdisc_core.data import ImageFolder, ImageSource, Manifest
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.nearest import nearest
from instdisc_core.index import structure
from instdisc_core.index.all_nearest import all_nearest, is_on_cpu
from instdisc_core.index.contents import page_contents
from instdisc_core.index.embedder import embedder_of, mirrored_embeddings, weights_digest
from instdisc_core.index.near_duplicates import DEFAULT_THRESHOLD, NearDuplicates, near_duplicates
from instdisc_core.index.structure import ImageClusters, Outliers
from instdisc_core.page import save_page
from instdisc_core.types import SearchResult, Tensor
from instdisc_core.validation import (
    UNIT_TOLERANCE,
    check_indices,
    require,
    require_count,
    require_finite,
)


class EmbeddedImages:
    """Unit embeddings, the Manifest of their images, and the model they are from.

    See ``ImageIndex``, which has these methods too.
    """

    rows: np.ndarray
    manifest: Manifest

    def __init__(
        self,
        rows: ArrayLike,
        images: ImageSource | Manifest,
        model: EmbeddingModel | None = None,
        backend: str | BankOps | None = None,
        mirror: bool = False,
    ) -> None:
        self.size = images.size if isinstance(images, ImageSource) else None
        manifest = images.manifest if isinstance(images, ImageSource) else images
        self._backend, self.mirror = backend, mirror
        self._take(np.array(rows, "float32"), manifest)
        self.model = None if model is None else embedder_of(model, self.size)
        self._weights = None if self.model is None else weights_digest(self.model)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """What each image is called."""
        return self.manifest.names

    def neighbors(self, k: int = 10, indices: ArrayLike | None = None) -> SearchResult:
        """The ``k`` images most similar to images of the index, without themselves.

        Args:
            k: number of neighbors, at most ``n - 1``.
            indices: which images, integers ``(q,)``; None is all.

        Returns:
            A SearchResult of NumPy arrays ``(q, k)``.

        Raises:
            ValueError: ``k`` out of its range.

        Example: ``ImageIndex(embeddings, photos).neighbors(k=3, indices=[7])``
        """
        if indices is None and is_on_cpu(self._backend):
            return all_nearest(self.rows, k)
        indices = np.arange(len(self)) if indices is None else indices
        own = np.asarray(check_indices(indices, len(self), of="images"))
        return self._nearest(self.rows[own], k, own)

    def near_duplicates(self, threshold: float = DEFAULT_THRESHOLD) -> NearDuplicates:
        """Images that are nearly the same: brightened, mirrored, resized, cropped a little.

        A pair is nearly the same if its images are nearer to each other than either is to others:
        with ``s`` the cosine and ``r_i = 1 - s`` from image ``i`` to its fifth nearest other
        image, if ``1 - s_ij <= threshold * (r_i + r_j) / 2``. So the default means the same for
        any embedding. ``r_i`` is at least a quarter of the median of all ``r``, for images with
        many copies. Mirrored copies are found if the index has ``mirror``.

        Args:
            threshold: the largest relative distance of a pair, in (0, 1]; less finds less. See
                ``docs/near_duplicates.md`` for how many altered copies the default finds.

        Returns:
            A NearDuplicates of pairs and of the groups that these form. An image with more than
            128 others that near is paired with the 128 nearest.

        Example: ``ImageIndex(embeddings, photos).near_duplicates(0.4).groups``
        """
        return near_duplicates(self.rows, threshold, self.neighbors)

    def outliers(self, n: int = 10, k: int = 5) -> Outliers:
        """The ``n`` images least like any others: the smallest mean cosine to the ``k`` nearest.

        Args:
            n: number of images, at most all.
            k: number of nearest others.

        Raises:
            ValueError: ``n`` or ``k`` out of its range.

        Example: ``ImageIndex(embeddings, photos).outliers(3).indices``
        """
        require_count("n", n)
        require(n <= len(self), f"n={n}", f"at most the {len(self)} images")
        similarities = self.neighbors(k).scores.mean(axis=1)
        order = np.argsort(similarities, kind="stable")[:n]
        return Outliers(order, similarities[order])

    def clusters(self, k: int, seed: int = 0) -> ImageClusters:
        """Divide the images into ``k`` clusters; see ``evaluation.cluster_neighbors``.

        Example: ``ImageIndex(embeddings, photos).clusters(4).centers``
        """
        return structure.clusters(self.rows, k, seed, self.neighbors)

    def diverse_subset(self, n: int) -> np.ndarray:
        """Indices of ``n`` images such that every image is similar to one of them.

        For example to label first. They are in the order in which they were chosen, so the first
        of a larger subset are a smaller one.

        Raises:
            ValueError: ``n`` out of its range.

        Example: ``ImageIndex(embeddings, photos).diverse_subset(5)``
        """
        return structure.diverse_subset(self.rows, n)

    def save_page(
        self,
        folder: str | os.PathLike,
        images: ImageSource,
        title: str = "Photos",
        k: int = 20,
        threshold: float = DEFAULT_THRESHOLD,
        num_outliers: int = 200,
        num_clusters: int = 20,
        positions: np.ndarray | None = None,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        """Write a web page of all images: ``index.html`` and a folder next to it, for any browser.

        It has neighbors, near-duplicates, outliers, clusters, a map and a search for names, and
        needs no server. A thumbnail that is there already is kept. Each image of an ImageFolder
        has a link to its file.

        Args:
            folder: its path; it is created if it does not exist.
            images: the ImageSource of the images in the index. Labels give frames and colors.
            title: of the page.
            k: neighbors of each image.
            threshold: see ``near_duplicates``.
            num_outliers, num_clusters: how many of them, at most.
            positions: ``(n, 2)``, where the map shows each image; None is ``evaluation.layout``.
            seed: of map and clusters.
            verbose: show a progress bar for 1,000 or more thumbnails.

        Raises:
            ValueError: other images than those of the index; or an ``index.html`` of another page.

        Example: ``ImageIndex(embeddings, photos).save_page("page", photos, num_clusters=4)``
        """
        self.manifest.check(images.manifest, "a page")
        parts = title, k, threshold, num_outliers, num_clusters, positions, seed
        originals = images.folder if isinstance(images, ImageFolder) else None
        save_page(folder, page_contents(self, images, *parts), images, originals, verbose)

    def embed(
        self, images: ImageSource, batch_size: int = 256, verbose: bool = False
    ) -> np.ndarray:
        """Unit embeddings ``(q, embedding_dim)``, float32, of other images.

        Raises:
            ValueError: images of another size; or the index has no model, or one that was trained
                after the index was built.

        Example: ``ImageIndex.from_model(model, photos).embed(test).shape``
        """
        model = self.model
        if model is None:
            raise ValueError(
                "Received: images, and an index without a model. Expected embeddings. Load it with "
                "ImageIndex.load(folder, model=...)."
            )
        require(
            self.size in (None, images.size),
            f"images of {images.size} pixels",
            f"images of {self.size} pixels, as those in the index",
        )
        self.check_weights()
        return mirrored_embeddings(model, images, self.mirror, batch_size, verbose)

    def check_weights(self) -> None:
        """Raise if the model was trained after the index was built; its rows are from before.

        Raises:
            ValueError: the weights have changed.

        Example: ``ImageIndex.from_model(model, photos).check_weights()``
        """
        require(
            self.model is None or weights_digest(self.model) == self._weights,
            "a model whose weights have changed since the index was built",
            "the weights that its rows are from",
            "Build a new index with ImageIndex.from_model.",
        )

    def _nearest(self, features: Tensor, k: int, own: np.ndarray) -> SearchResult:
        """The rows nearest to unit embeddings; ``own`` as in ``nearest``."""
        features = ops.convert_to_tensor(features, "float32")
        return nearest(features, self._table, k, own, self._backend)

    @cached_property
    def _table(self) -> Tensor:
        """The rows on the device."""
        return ops.convert_to_tensor(self.rows)

    def _take(self, rows: np.ndarray, manifest: Manifest) -> None:
        """Take over rows and manifest once they are checked."""
        require(
            rows.ndim == 2 and len(rows) == len(manifest),
            f"rows of shape {rows.shape} for {len(manifest)} images",
            "one embedding for each image",
        )
        require_finite("rows", rows)
        wrong = int(np.sum(np.abs(np.linalg.norm(rows, axis=1) - 1) > UNIT_TOLERANCE))
        require(
            wrong == 0,
            f"rows of which {wrong} of {len(rows)} are not of length 1",
            "unit rows",
            "Divide them by their lengths; a row of zeros has no direction.",
        )
        self.rows, self.manifest = rows.view(), manifest
        self.rows.flags.writeable = False
        self.__dict__.pop("_table", None)
