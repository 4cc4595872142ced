"""The shadow: held against a plain computation of what CSS's drop-shadow is, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support.runner_models import red_detector
from u2net.cli import main
from u2net.errors import ConfigError
from u2net.shadow import ShadowSettings, cast_shadow


def disc(side: int = 200) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:side, :side] - side / 2
    alpha = np.clip(side / 4 - np.hypot(x, y) + 0.5, 0, 1)
    rgb = np.full((side, side, 3), (200, 120, 40), np.uint8)
    rgb[alpha == 0] = 0
    return rgb, (alpha * 255 + 0.5).astype(np.uint8)


def test_it_is_the_drop_shadow_of_css() -> None:
    rgb, alpha = disc()
    settings = ShadowSettings(shadow=True, shadow_opacity=0.6, shadow_blur=0.05, shadow_drop=0.1)
    out, both = cast_shadow(rgb, alpha, 100, settings)
    matte = alpha / 255
    moved = np.vstack((np.zeros((10, 200)), matte[:-10]))
    shade = 0.6 * ndimage.gaussian_filter(moved, 5.0, mode="nearest")
    expected = matte + shade * (1 - matte)
    assert np.abs(both / 255 - expected).max() < 0.02  # Pillow's Gaussian is three box means
    # On white, as it is seen: colour · a + white · (1 − o).
    seen = out / 255 * (both / 255)[..., None] + (1 - both / 255)[..., None]
    wanted = rgb / 255 * matte[..., None] + (1 - expected)[..., None]
    assert np.abs(seen - wanted).max() < 0.03


def test_what_it_leaves_alone() -> None:
    rgb, alpha = disc()
    out, both = cast_shadow(rgb, alpha, 100, ShadowSettings(shadow=True))
    assert (both >= alpha).all()
    np.testing.assert_array_equal(out[alpha == 255], rgb[alpha == 255])
    assert (out[both == 0] == 0).all() and (out[(alpha == 0) & (both > 0)] == 0).all()
    same, still = cast_shadow(rgb, alpha, 100, ShadowSettings(shadow=True, shadow_opacity=0))
    np.testing.assert_array_equal(still, alpha)
    np.testing.assert_array_equal(same, rgb)
    cast_shadow(rgb[:3], alpha[:3], 10_000, ShadowSettings(shadow=True, shadow_drop=1))  # dropped out of the picture


def test_the_command(tmp_path: Path) -> None:
    model = red_detector(tmp_path / "red.onnx")
    rgb = np.full((120, 160, 3), (30, 60, 90), np.uint8)
    rgb[30:80, 50:110] = (250, 20, 20)
    Image.fromarray(rgb).save(tmp_path / "in.png")
    common = [str(tmp_path / "in.png"), "--model", str(model), "-q"]
    plain, shaded, masks = tmp_path / "plain.png", tmp_path / "shaded.png", [tmp_path / "m0.png", tmp_path / "m1.png"]
    assert main([*common, "-o", str(plain), "--mask", str(masks[0])]) == 0
    assert main([*common, "-o", str(shaded), "--mask", str(masks[1]), "--shadow", "--shadow-drop", "0.1"]) == 0
    assert masks[0].read_bytes() == masks[1].read_bytes()  # the matte has no shadow
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (plain, shaded))
    below = (slice(82, 86), slice(60, 100))
    assert after[below][..., 3].min() > before[below][..., 3].max() + 20
    for background in ("white", "#ffffff80"):  # also in front of something
        assert main([*common, "-o", str(shaded), "--shadow", "--background", background]) == 0


def test_a_crop_has_room_for_it(tmp_path: Path) -> None:
    """With both at their defaults the shadow has faded where the picture is cut."""
    rgb, alpha = disc(800)
    cut = slice(200 - 20, 600 + 20)
    _, both = cast_shadow(rgb[cut, cut], alpha[cut, cut], 400, ShadowSettings(shadow=True))
    edges = np.concatenate((both[0], both[-1], both[:, 0], both[:, -1]))
    assert edges.max() <= 2


@pytest.mark.parametrize("values", [{"shadow_opacity": 1.5}, {"shadow_blur": -0.1}, {"shadow_drop": float("nan")}])
def test_nonsense(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ShadowSettings(shadow=True, **values)
