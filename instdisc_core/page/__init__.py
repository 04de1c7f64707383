"""A web page of images, their neighbors, near-duplicates, outliers, clusters and a map."""

from instdisc_core.page.contents import Contents, NeighborRow
from instdisc_core.page.static_files import FILES, page_file
from instdisc_core.page.thumbnails import Thumbnails, encoded
from instdisc_core.page.writing import html_page, one_file, save_page

__all__ = [
    "FILES",
    "Contents",
    "NeighborRow",
    "Thumbnails",
    "encoded",
    "html_page",
    "one_file",
    "page_file",
    "save_page",
]
