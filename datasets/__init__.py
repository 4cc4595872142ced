"""Where pictures come from: folders, known public sets, a procedural set with exact mattes, calibration sampling."""

from .calibration import CalibrationImages, CalibrationSplit, calibration_images, calibration_split
from .folder import ImageFolder, ImageRecord, PairFolder, PairRecord
from .public import PUBLIC_SETS, PublicSet, open_public
from .synthetic import KINDS, Scene, SyntheticSet

__all__ = [
    "KINDS",
    "PUBLIC_SETS",
    "CalibrationImages",
    "CalibrationSplit",
    "ImageFolder",
    "ImageRecord",
    "PairFolder",
    "PairRecord",
    "PublicSet",
    "Scene",
    "SyntheticSet",
    "calibration_images",
    "calibration_split",
    "open_public",
]
