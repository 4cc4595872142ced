"""Where pictures come from: folders, known public sets, a procedural set with exact mattes, calibration sampling."""

from .calibration import CalibrationImages, calibration_images
from .folder import ImageFolder, ImageRecord, PairFolder, PairRecord
from .public import PUBLIC_SETS, PublicSet, open_public
from .synthetic import KINDS, Scene, SyntheticSet

__all__ = [
    "KINDS",
    "PUBLIC_SETS",
    "CalibrationImages",
    "ImageFolder",
    "ImageRecord",
    "PairFolder",
    "PairRecord",
    "PublicSet",
    "Scene",
    "SyntheticSet",
    "calibration_images",
    "open_public",
]
