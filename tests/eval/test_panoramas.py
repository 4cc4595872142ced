"""Panoramas: the runner finds in a wide picture what the network finds in a square crop of it."""

from __future__ import annotations

from pathlib import Path

from eval.panoramas import measure_panoramas, panoramas_text
from u2net.infer import Session


def test_a_subject_is_found_as_well_as_in_a_crop(lite_fp32: Path) -> None:
    """One backdrop for each aspect; `u2net eval panoramas` has them all."""
    rows = measure_panoramas(Session(lite_fp32, threads=1), [(3, "water"), (6, "landscape"), (12, "water")])
    assert [row.aspect for row in rows] == [3, 6, 12]
    for row in rows:
        assert row.share >= 0.9, row
        assert row.looks <= 1.5 * row.aspect + 3  # windows overlap by a third, then the box, and once mirrored
    assert any(row.one_look < 0.5 for row in rows), "one look would not do"
    assert panoramas_text(rows).count(" : 1") == 3
