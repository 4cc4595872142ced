"""Public sets of pictures with masks that salient object detection is judged on: what they are and how they lie.

None is downloaded for you: each has its own terms. Unpack a set as it comes, give its folder to `open_public`, and it
is checked (folders, number of pairs, sizes) and read as pairs like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from u2net.errors import DataError
from u2net.files import check_path

from .folder import PairFolder, PairRecord

__all__ = ["PUBLIC_SETS", "PublicSet", "open_public"]


@dataclass(frozen=True)
class PublicSet:
    """One public set. `layouts` are (images, masks) folders below its root, the one that it comes with first."""

    name: str
    title: str
    count: int  # pairs
    layouts: tuple[tuple[str, str], ...]
    terms: str
    source: str
    paper: str
    note: str = ""
    sequences: bool = False  # both folders hold one folder per video

    def describe(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


#: What people unpack into if not into the set's own folders.
PLAIN = ("images", "masks")

_SETS = (
    PublicSet(
        "duts-te",
        "DUTS-TE",
        5019,
        (("DUTS-TE-Image", "DUTS-TE-Mask"), PLAIN),
        "academic use; pictures from ImageNet and SUN under their own terms",
        "http://saliencydetection.net/duts/",
        "Wang et al., Learning to Detect Salient Objects with Image-level Supervision, CVPR 2017",
        "the usual training set is its sibling DUTS-TR (10,553)",
    ),
    PublicSet(
        "ecssd",
        "ECSSD",
        1000,
        (("images", "ground_truth_mask"), PLAIN),
        "research use; no licence is stated",
        "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html",
        "Shi et al., Hierarchical Image Saliency Detection on Extended CSSD, TPAMI 2016",
        "two archives, images.zip and ground_truth_mask.zip; unpack both into one folder",
    ),
    PublicSet(
        "hku-is",
        "HKU-IS",
        4447,
        (("imgs", "gt"), PLAIN),
        "academic use; no licence is stated",
        "https://i.cs.hku.hk/~gbli/deep_saliency.html",
        "Li and Yu, Visual Saliency Based on Multiscale Deep Features, CVPR 2015",
    ),
    PublicSet(
        "pascal-s",
        "PASCAL-S",
        850,
        (("datasets/imgs/pascal", "datasets/masks/pascal"), ("imgs/pascal", "masks/pascal"), ("imgs", "masks"), PLAIN),
        "academic use; pictures from PASCAL VOC 2010 (Flickr terms)",
        "http://cbs.ic.gatech.edu/salobj/",
        "Li et al., The Secrets of Salient Object Segmentation, CVPR 2014",
        "masks are graded by the share of people who marked them; above one half is salient",
    ),
    PublicSet(
        "dut-omron",
        "DUT-OMRON",
        5168,
        (("DUT-OMRON-image", "pixelwiseGT-new-PNG"), PLAIN),
        "academic use; no licence is stated",
        "http://saliencydetection.net/dut-omron/",
        "Yang et al., Saliency Detection via Graph-Based Manifold Ranking, CVPR 2013",
        "archives of before 2018 hold four pictures without a mask: delete them",
    ),
    PublicSet(
        "davis-2016",
        "DAVIS 2016",
        3455,
        (("JPEGImages/480p", "Annotations/480p"),),
        "BSD 3-Clause",
        "https://davischallenge.org/davis2016/code.html",
        "Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016",
        "all 50 videos at 480p; one folder per video, every frame is a pair",
        sequences=True,
    ),
)
PUBLIC_SETS: dict[str, PublicSet] = {each.name: each for each in _SETS}


def open_public(name: str, path: str | os.PathLike[str], complete: bool = True) -> tuple[PairRecord, ...]:
    """The pairs of the public set `name` in the folder `path`, stems prefixed with the set's name.

    Raises `DataError` where no set has that name, the folder is not laid out like the set, masks are missing or of
    another size, or, unless `complete` is false, the number of pairs is not the set's.
    """
    known = PUBLIC_SETS.get(name)
    if known is None:
        raise DataError(f"no public set is called {name!r}; there are {', '.join(PUBLIC_SETS)}")
    root = check_path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; unpack the set there first")
    records = tuple(_renamed(known, root))
    if complete and len(records) != known.count:
        raise DataError(
            f"{root} holds {len(records):,} pairs; {known.title} has {known.count:,}; download it whole, or say "
            "--partial"
        )
    return records


def _renamed(known: PublicSet, root: Path) -> Iterator[PairRecord]:
    images, masks = _layout(known, root)
    if not known.sequences:
        for record in PairFolder(root, images, masks, mask_values="grey"):
            yield replace(record, stem=f"{known.name}_{record.stem}")
        return
    videos = sorted(folder.name for folder in (root / images).iterdir() if folder.is_dir())
    if not videos:
        raise DataError(
            f"{root / images} holds no videos; {known.title} has one folder per video there; give the folder that "
            "its archive unpacks to"
        )
    for video in videos:
        for record in PairFolder(root, f"{images}/{video}", f"{masks}/{video}", mask_values="grey"):
            yield replace(record, stem=f"{known.name}_{video}-{record.stem}")


def _layout(known: PublicSet, root: Path) -> tuple[str, str]:
    """The first layout of the set that `root` has; the set's own name as a folder in between is allowed for."""
    for images, masks in known.layouts:
        if (root / images).is_dir() and (root / masks).is_dir():
            return images, masks
    for images, masks in known.layouts:
        for inner in sorted(p for p in root.iterdir() if p.is_dir()):
            if (inner / images).is_dir() and (inner / masks).is_dir():
                return f"{inner.name}/{images}", f"{inner.name}/{masks}"
    wanted = " or ".join(f"{images}/ with {masks}/" for images, masks in known.layouts)
    raise DataError(
        f"{root} is not laid out like {known.title}: it needs {wanted}; give the folder that its archive unpacks to"
    )
