"""Checkpoints of a training, which may be killed at any moment."""

from instdisc_core.checkpoints.callback import Checkpoints
from instdisc_core.checkpoints.folder import CheckpointFolder, Position
from instdisc_core.checkpoints.folder_lock import FolderLock
from instdisc_core.checkpoints.seal import check_seal, seal

__all__ = ["CheckpointFolder", "Checkpoints", "FolderLock", "Position", "check_seal", "seal"]
