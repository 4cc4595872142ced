"""Where pictures come from: folders, known public sets, a procedural set with exact mattes, calibration sampling."""

from .calibration import CalibrationImages, calibration_images
from .folder import ImageFolder, ImageRecord, PairFolder, PairRecord
from .synthetic import Scene, SyntheticSet

__all__ = [
    "CalibrationImages",
    "ImageFolder",
    "ImageRecord",
    "PairFolder",
    "PairRecord",
    "Scene",
    "SyntheticSet",
    "calibration_images",
]
