"""Every error that this project raises on purpose.

U2NetError                  anything below; the command line prints its message on one line and exits with 1
├── ConfigError             a setting or a combination of settings that cannot work
├── CheckpointError         a checkpoint that cannot be read or is not a U²-Net
├── ModelError              an ONNX model that cannot be read, is not what it says, or is refused
├── ImageError              a picture that cannot be decoded, or is refused
├── OutputError             a result that cannot be written
├── ArtifactError           an artifact whose sidecar is missing, damaged, or speaks of other bytes
├── DataError               a data set that is empty, incomplete or inconsistent
├── DownloadError           a download that failed or is not what was asked for
└── QualityError            a model that does not pass the checks that it must pass
"""

from __future__ import annotations

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DownloadError",
    "ImageError",
    "ModelError",
    "OutputError",
    "QualityError",
    "U2NetError",
]


class U2NetError(Exception):
    """Base of the project's errors. Its message is one readable line."""


class ConfigError(U2NetError):
    """A setting or a combination of settings that cannot work."""


class CheckpointError(U2NetError):
    """A checkpoint that cannot be read or is not a U²-Net."""


class ModelError(U2NetError):
    """An ONNX model that cannot be read, is not what it says, or is refused."""


class ImageError(U2NetError):
    """A picture that cannot be decoded, or is refused."""


class OutputError(U2NetError):
    """A result that cannot be written."""


class ArtifactError(U2NetError):
    """An artifact whose sidecar is missing, damaged, or speaks of other bytes."""


class DataError(U2NetError):
    """A data set that is empty, incomplete or inconsistent."""


class DownloadError(U2NetError):
    """A download that failed or is not what was asked for."""


class QualityError(U2NetError):
    """A model that does not pass the checks that it must pass."""
