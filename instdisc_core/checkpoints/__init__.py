"""Saving a training so that it can be killed at any moment."""

from instdisc_core.checkpoints.callback import Checkpoints
from instdisc_core.checkpoints.folder import Position
from instdisc_core.checkpoints.folder_lock import FolderLock
from instdisc_core.checkpoints.seal import check_seal, seal

__all__ = ["Checkpoints", "FolderLock", "Position", "check_seal", "seal"]
