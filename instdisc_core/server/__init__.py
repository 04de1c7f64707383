"""A web server for an index: its page, search by a picture, and a map, for any number of images."""

from instdisc_core.server.app import create_app
from instdisc_core.server.running import Address, bound, is_local, run

__all__ = ["Address", "bound", "create_app", "is_local", "run"]
