"""The procedural set: exact, stable, varied, and like photographs where it counts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from datasets import KINDS, ImageFolder, Scene, SyntheticSet
from datasets.procedural.noise import fractal
from datasets.procedural.shapes import ellipse, profile, ring, tube
from u2net.errors import ConfigError

SIZE = (240, 180)


def digest(scene: Scene) -> str:
    parts = (scene.rgb, scene.alpha, scene.foreground, scene.background)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), index=st.integers(0, 10**4), kind=st.sampled_from((None, *KINDS)))
def test_every_scene_is_its_layers_composed_exactly(seed: int, index: int, kind: str | None) -> None:
    scene = SyntheticSet(index + 1, seed, (160, 120), kind)[index]
    assert scene.rgb.shape == scene.foreground.shape == scene.background.shape == (120, 160, 3)
    assert scene.rgb.dtype == np.uint8 and scene.alpha.dtype == np.float32 and scene.alpha.shape == (120, 160)
    a = np.rint(scene.alpha.astype(np.float64) * 255)
    assert np.abs(scene.alpha - a / 255).max() < 1e-6 and a.min() >= 0 and a.max() <= 255
    exact = (scene.foreground * a[..., None] + scene.background * (255 - a[..., None])) / 255
    assert np.array_equal(np.floor(exact + 0.5), scene.rgb)
    assert np.array_equal(scene.mask(), a)
    assert kind is None or kind in scene.tags


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    few, many = SyntheticSet(3, 11, SIZE), SyntheticSet(50, 11, SIZE)
    digests = [digest(scene) for scene in few]
    assert digests == [digest(scene) for scene in many[:3]]
    assert digest(many[-1]) == digest(SyntheticSet(50, 11, SIZE)[49])
    assert len({*digests, digest(SyntheticSet(1, 12, SIZE)[0]), digest(SyntheticSet(1, 11, SIZE, "hair")[0])}) == 5
    with pytest.raises(IndexError):
        few[3]


# Mean colour in 3 rows of 4 and share of alpha of three scenes at 240×180: the set must not drift between machines.
GOLDEN: dict[int, tuple[list[int], int]] = {
    0: ([151, 129, 90, 86, 171, 183, 181, 195, 97, 81, 130, 120], 578),
    7: ([18, 16, 18, 19, 19, 77, 65, 22, 20, 92, 60, 19], 101),
    12: ([199, 211, 215, 213, 156, 130, 139, 203, 97, 113, 106, 145], 311),
    22: ([128, 159, 166, 155, 122, 118, 156, 119, 118, 133, 126, 111], 326),
}


def fingerprint(scene: Scene) -> tuple[list[int], int]:
    small = Image.fromarray(scene.rgb).resize((4, 3), Image.Resampling.BOX)
    return np.asarray(small).mean(2).round().astype(int).ravel().tolist(), round(float(scene.alpha.mean()) * 1000)


@pytest.mark.parametrize("index", sorted(GOLDEN))
def test_scenes_are_the_same_on_every_machine(index: int) -> None:
    cells, share = fingerprint(SyntheticSet(index + 1, 0, SIZE)[index])
    assert np.abs(np.subtract(cells, GOLDEN[index][0])).max() <= 1
    assert abs(share - GOLDEN[index][1]) <= 1


def test_subjects_cover_what_masks_cover() -> None:
    shares = np.array([scene.alpha.mean() for scene in SyntheticSet(40, 2, (160, 120))])
    # Public sets have a fifth of the picture salient on average, and hardly ever none or all of it.
    assert 0.1 < shares.mean() < 0.4 and (shares > 0.002).mean() > 0.95 and shares.max() < 0.95


def test_sets_are_varied() -> None:
    scenes = SyntheticSet(70, 4, (160, 120))[:70]
    tags = {tag for scene in scenes for tag in scene.tags}
    assert set(KINDS) <= tags
    assert {"gradient", "texture", "blurred", "landscape", "interior", "street"} <= tags
    assert len(tags - set(KINDS)) >= 25  # backgrounds and kinds of subject
    means = np.array([scene.rgb.mean((0, 1)) for scene in scenes])
    assert means.std(0).min() > 25 and np.ptp(means, 0).min() > 100


def soft_share(scene: Scene) -> float:
    """Pixels with partial alpha over pixels of the subject."""
    return float(((scene.alpha > 0.05) & (scene.alpha < 0.95)).sum() / max(1, (scene.alpha > 0.05).sum()))


def holes(scene: Scene) -> int:
    solid = scene.alpha > 0.5
    return int(ndimage.label(ndimage.binary_fill_holes(solid) & ~solid & (scene.alpha < 0.1))[1])


def test_kinds_show_what_they_say() -> None:
    def each(kind: str, count: int = 9) -> list[Scene]:
        return list(SyntheticSet(count, 1, (320, 240), kind))

    hard = np.median([soft_share(s) for s in each("hard")])
    assert hard < 0.12
    for kind, factor in (("hair", 1.5), ("translucent", 4), ("motion", 3), ("defocus", 3)):
        assert np.median([soft_share(s) for s in each(kind)]) > factor * hard, kind
    assert np.mean([holes(s) > 0 for s in each("holes")]) > 0.8
    thin = [s.alpha > 0.5 for s in each("thin")]
    lost = [1 - ndimage.binary_opening(mask, iterations=4).sum() / mask.sum() for mask in thin]
    assert np.median(lost) > 0.1
    assert all("several" in s.tags for s in each("several", 6))


def test_foreground_colours_differ_from_the_picture_only_where_the_edge_is_soft() -> None:
    scene = SyntheticSet(1, 3, (480, 360), "hair")[0]
    inside = scene.alpha == 1
    assert np.array_equal(scene.rgb[inside], scene.foreground[inside])
    outside = scene.alpha == 0
    assert np.array_equal(scene.rgb[outside], scene.background[outside])


def test_large_scenes_have_fine_hair() -> None:
    scene = SyntheticSet(1, 0, (1600, 1200), "hair")[0]
    assert scene.rgb.shape == (1200, 1600, 3)
    solid = scene.alpha > 0.5
    strands = solid & ~ndimage.binary_opening(solid, iterations=3)
    assert strands.sum() > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "at least one"),
        ({"count": 1, "seed": -1}, "seed"),
        ({"count": 1, "size": (32, 500)}, "64×64"),
        ({"count": 1, "kind": "wavy"}, "'wavy'"),
    ],
)
def test_bad_settings(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyntheticSet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("power", [0.7, 1.0, 1.6])
def test_noise_has_the_spectrum_it_claims(power: float) -> None:
    field = fractal(np.random.default_rng(1), (512, 512), power)
    assert abs(field.mean()) < 1e-4 and field.std() == pytest.approx(1, abs=1e-3)
    amplitude = np.abs(np.fft.fft2(field))
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None, :])
    band = np.geomspace(0.02, 0.4, 12)
    level = [amplitude[(radius > a) & (radius < a * 1.2)].mean() for a in band]
    slope = np.polyfit(np.log(band), np.log(level), 1)[0]
    assert slope == pytest.approx(-power, abs=0.06)


def area(outline: np.ndarray) -> float:
    x, y = outline[:, 0], outline[:, 1]
    return float(abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)


def test_outlines_have_the_areas_of_their_shapes() -> None:
    assert area(ellipse(3, 4, 2, 5, 0.7, count=200)) == pytest.approx(np.pi * 10, rel=1e-3)
    assert area(tube(((0, 0), (10, 0)), (2, 2), 40)) == pytest.approx(20 + np.pi, rel=0.02)
    outside, inside = ring(0, 0, 3, 2)
    assert area(outside) - area(inside) == pytest.approx(5 * np.pi, rel=0.01)
    assert area(profile(((1, 0), (1, 1), (1, 2)))) == pytest.approx(4, rel=0.02)


def spectrum_slope(rgb: np.ndarray) -> float:
    grey = np.asarray(Image.fromarray(rgb).convert("L").resize((256, 256)), np.float64)
    window = np.hanning(256)[:, None] * np.hanning(256)
    amplitude = np.abs(np.fft.fft2((grey - grey.mean()) * window))
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None, :])
    band = np.geomspace(0.02, 0.3, 10)
    return float(
        np.polyfit(np.log(band), [np.log(amplitude[(radius > a) & (radius < a * 1.3)].mean()) for a in band], 1)[0]
    )


def test_spectra_are_those_of_photographs(shared: Path) -> None:
    photographs = [spectrum_slope(record.image()) for record in ImageFolder(shared / "data" / "calib")[:24]]
    scenes = [spectrum_slope(scene.rgb) for scene in SyntheticSet(24)]
    assert np.mean(scenes) == pytest.approx(np.mean(photographs), abs=0.3)


def test_activations_of_small_are_those_of_photographs(shared: Path, small_weights: Path) -> None:
    """Calibration sees the same ranges: the 99.9th percentile of nearly every convolution's output, on 10 pictures."""
    import torch

    from u2net.network.checkpoint import load_checkpoint
    from u2net.preprocess import to_tensor

    model = load_checkpoint(small_weights)
    ranges: dict[str, list[float]] = {}
    for name, module in model.named_modules():
        if name.endswith("relu_s1"):
            module.register_forward_hook(
                lambda _m, _i, o, name=name: ranges.setdefault(name, []).append(
                    float(torch.quantile(o.flatten()[:: max(1, o.numel() // 50_000)], 0.999))
                )
            )
    photographs = [r.image() for r in ImageFolder(shared / "data" / "calib")[::16]]
    scenes = [scene.rgb for scene in SyntheticSet(10)]
    with torch.inference_mode():
        for picture in (*photographs, *scenes):
            model(torch.from_numpy(to_tensor(picture, 160)))
    ratio = np.array([np.mean(v[10:]) / np.mean(v[:10]) for v in ranges.values()])
    assert len(ratio) == 112
    assert np.mean((ratio > 1 / 1.4) & (ratio < 1.4)) > 0.85
    assert 0.8 < np.median(ratio) < 1.2
