"""The browser package in real Chromium, on pages with a strict content security policy."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from tests.support.paths import ROOT
from tests.support.web_browser import (  # noqa: F401
    call,
    chromium,
    host_of,
    launch,
    packed_bundle,
    probe_bundle,
    tiny_bundle,
    web_dist,
)
from tests.support.web_host import ISOLATION, WebHost
from u2net.infer import Session
from u2net.postprocess import BALANCED, FAST
from u2net.preprocess import resize_bilinear
from u2net.remover import Remover
from u2net.shadow import ShadowSettings
from u2net.subject import CropSettings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

CREATE = "const remover = await api.createRemover({ base: 'model/', device: 'wasm', ...(x?.options) }); "
BYTES = (
    "const bytes = async (blob) => { const b = new Uint8Array(await blob.arrayBuffer()); let s = '';"
    " for (let i = 0; i < b.length; i += 32768) s += String.fromCharCode(...b.subarray(i, i + 32768));"
    " return btoa(s); };"
    " const file = (name) => new Blob([Uint8Array.from(atob(x[name]), (c) => c.charCodeAt(0))]); "
)


@pytest.fixture
def host(packed_bundle: Path) -> Iterator[WebHost]:
    with host_of(packed_bundle) as server:
        yield server


@pytest.fixture
def reference_host(tiny_bundle: Path) -> Iterator[WebHost]:
    """With the probe as ONNX, which runs in ONNX Runtime Web and, in Python, in onnxruntime."""
    with host_of(tiny_bundle) as server:
        yield server


def visit(chromium: Browser, host: WebHost) -> Iterator[Page]:
    """An empty page of a fresh profile; the test fails where the page breaks its content security policy."""
    with chromium.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{host.origin}/app/")
        yield page
        assert not [text for text in said if "Content Security Policy" in text]


@pytest.fixture
def page(chromium: Browser, host: WebHost) -> Iterator[Page]:
    yield from visit(chromium, host)


@pytest.fixture
def reference_page(chromium: Browser, reference_host: WebHost) -> Iterator[Page]:
    yield from visit(chromium, reference_host)


def encoded(image: Image.Image, form: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def decoded(text: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def scene(width: int = 360, height: int = 270, seed: int = 0) -> Image.Image:
    """A disc on noise, with a gradient: enough for a network to have an opinion."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.random.default_rng(seed).integers(90, 130, (height, width, 3))
    rgb[..., 0] += (x * 60 // width).astype(rgb.dtype)
    rgb[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2] = (220, 60, 40)
    return Image.fromarray(rgb.astype(np.uint8))


# ---- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(333, 241), (1501, 1340), (64, 1000), (1, 1), (1, 40)])
def test_alpha_equals_the_python_runner_on_the_same_pixels(
    reference_page: Page, tiny_bundle: Path, size: tuple[int, int]
) -> None:
    """±1 of 255 in every pixel: box reduction, resize, normalisation, the way back, and the engine itself."""
    image = scene(*size)
    out = call(
        reference_page,
        BYTES + CREATE + "const r = await remover.cutout(file('picture'), { refine: 'fast' });"
        "const a = await remover.cutout(file('picture'), { output: 'alpha', refine: 'fast' });"
        "return { png: await bytes(r.image), alpha: await bytes(a.image), size: [r.alpha.width, r.alpha.height] }",
        {"picture": encoded(image, "PNG")},
    )
    assert "error" not in out, out
    alpha = decoded(out["alpha"])
    session = Session(tiny_bundle / "fp32.onnx", threads=1)
    expected = Remover(session, refinement=FAST).cutout(np.asarray(image)).alpha
    assert tuple(out["size"]) == size
    assert alpha.shape == expected.shape
    assert np.abs(alpha.astype(int) - expected).max() <= 1
    cutout = decoded(out["png"])
    assert np.array_equal(cutout[..., 3], alpha)
    assert not cutout[alpha == 0].any(), "nothing of the background is carried along"
    opaque = alpha == 255
    assert np.array_equal(cutout[opaque][:, :3], np.asarray(image)[opaque])


def test_balanced_cutout_equals_the_python_runners(reference_page: Page, tiny_bundle: Path) -> None:
    """Edges refined and colours cleaned, through the whole pipeline in bands: alpha within 1, colours within what a
    premultiplying canvas costs. From its own matte the same cut-out is composed again; the shadow is Python's."""
    image = scene(1400, 900)
    out, again, shaded = call(
        reference_page,
        BYTES + CREATE + "const { image, alpha } = await remover.cutout(file('picture'));"
        "const again = await remover.compose(file('picture'), alpha);"
        "const look = { shadow: true, crop: { square: true, margin: 0.1 } };"
        "const shaded = await remover.compose(file('picture'), alpha, look);"
        "return Promise.all([image, again.image, shaded.image].map(bytes))",
        {"picture": encoded(image, "PNG")},
    )
    assert again == out
    expected = Remover(Session(tiny_bundle / "fp32.onnx", threads=1)).cutout(np.asarray(image))
    actual = decoded(out).astype(int)
    soft = (expected.alpha > 0) & (expected.alpha < 255)
    assert soft.sum() > 1000
    assert np.abs(actual[..., 3] - expected.alpha).max() <= 2
    assert (np.abs(actual[..., 3] - expected.alpha) <= 1).mean() > 0.999
    weight = expected.alpha[..., None] / 255
    assert np.abs((actual[..., :3] - expected.rgb.astype(int)) * weight).max() <= 3
    same = replace(expected, alpha=actual[..., 3].astype(np.uint8), rgb=actual[..., :3].astype(np.uint8))
    square = same.cropped(CropSettings(square=True, margin=0.1))
    cast = square.with_shadow(ShadowSettings(shadow=True), expected.subject)
    difference = np.abs(decoded(shaded)[..., 3].astype(int) - cast.alpha)
    assert difference.max() <= 3, "the Gaussian is made of box means on both sides, not of the same ones"
    assert difference.mean() < 0.3
    assert (cast.alpha != square.alpha).mean() > 0.02, "there is a shadow to compare"


def test_very_large_pictures_are_written_in_bands(reference_page: Page, tiny_bundle: Path) -> None:
    """Above what a canvas may hold on phones: read anew for each pass, written by the package's own PNG writer, with
    and without a background; and above 50 megapixels scaled down, which is said."""
    image = Image.new("RGB", (4160, 4128), (90, 100, 130))
    ImageDraw.Draw(image).ellipse((1000, 900, 3000, 3300), (220, 60, 40))
    picture = encoded(image, "PNG", compress_level=1)
    out = call(
        reference_page,
        BYTES + CREATE + "const r = await remover.cutout(file('picture'), { refine: 'fast' });"
        "const ramp = { stops: ['#000', '#fff'], angle: 90 };"
        "const b = await remover.cutout(file('picture'), { refine: 'fast', background: ramp });"
        "return { clear: await bytes(r.image), over: await bytes(b.image) }",
        {"picture": picture},
    )
    assert "error" not in out, out
    expected = Remover(Session(tiny_bundle / "fp32.onnx", threads=1), refinement=FAST).cutout(np.asarray(image)).alpha
    clear, over = decoded(out["clear"]).astype(int), decoded(out["over"]).astype(int)
    assert clear.shape == (4128, 4160, 4)
    assert np.abs(clear[..., 3] - expected).max() <= 1
    seen = clear[..., 3] == 255
    assert np.array_equal(clear[..., :3][seen], np.asarray(image)[seen])
    alpha = clear[..., 3:] / 255
    wanted = np.asarray(image) * alpha + np.linspace(0, 255, 4160)[None, :, None] * (1 - alpha)
    assert np.abs(over[..., :3] - wanted).max() <= 4
    large = call(
        reference_page,
        BYTES + CREATE + "const r = await remover.convert(file('picture'), { output: 'jpeg' });"
        "return [r.width * r.height, r.notes]",
        {"picture": encoded(Image.new("RGB", (8000, 6400), "teal"), "JPEG")},
    )
    assert 49e6 < large[0] <= 50e6
    assert any("scaled down" in note for note in large[1])


def test_transparency_of_the_original_is_kept(reference_page: Page, tiny_bundle: Path) -> None:
    image = scene(200, 160)
    own = Image.fromarray(np.tile(np.linspace(0, 255, 200).astype(np.uint8), (160, 1)))
    image.putalpha(own)
    out = call(
        reference_page,
        BYTES
        + CREATE
        + "const r = await remover.cutout(file('picture'), { output: 'alpha', refine: 'fast' }); return bytes(r.image)",
        {"picture": encoded(image, "PNG")},
    )
    session = Session(tiny_bundle / "fp32.onnx", threads=1)
    expected = Remover(session, refinement=FAST).cutout(np.asarray(image)).alpha
    # A canvas premultiplies, which costs the colours of nearly transparent pixels a few bits.
    assert np.abs(decoded(out).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("size", [(600, 400), (400, 600), (1200, 200)])
def test_second_look_equals_the_python_runners(reference_page: Page, tiny_bundle: Path, size: tuple[int, int]) -> None:
    """A small subject, high, wide and in a panorama: found again, closer, in the same place in both runners."""
    image = Image.new("RGB", size, (40, 80, 190))
    ImageDraw.Draw(image).ellipse((60, 50, 120, 150), fill=(230, 120, 40))
    out = call(
        reference_page,
        BYTES
        + CREATE
        + "const picture = file('picture'), results = [];"
        + "for (const secondLook of [true, false]) {"
        + " const r = await remover.cutout(picture, { output: 'alpha', refine: { secondLook } });"
        + " results.push({ alpha: await bytes(r.image), ms: r.timings.secondLookMs }); } return results",
        {"picture": encoded(image, "PNG")},
    )
    session = Session(tiny_bundle / "fp32.onnx", threads=1)
    for result, second_look in zip(out, (True, False), strict=True):
        refinement = replace(BALANCED, second_look=second_look)
        expected = Remover(session, refinement=refinement).cutout(np.asarray(image)).alpha
        assert (result["ms"] > 0) == second_look
        difference = np.abs(decoded(result["alpha"]).astype(int) - expected)
        assert difference.max() <= 2
        assert (difference <= 1).mean() > 0.999
    assert out[0]["alpha"] != out[1]["alpha"]


def test_a_cutout_is_kept(reference_page: Page) -> None:
    """As the Python runner keeps it: the picture's own alpha, with a note, and no work of the network."""
    image = Image.new("RGBA", (300, 200))
    ImageDraw.Draw(image).ellipse((60, 20, 220, 180), outline=(255, 255, 255, 255), width=20)
    out = call(
        reference_page,
        BYTES
        + CREATE
        + "const r = await remover.cutout(file('picture'), { output: 'alpha' });"
        + "return { alpha: await bytes(r.image), notes: r.notes, ms: r.timings.inferenceMs }",
        {"picture": encoded(image, "PNG")},
    )
    assert np.array_equal(decoded(out["alpha"]), np.asarray(image)[..., 3])
    assert out["notes"] == ["already a cut-out: kept as it is"]
    assert out["ms"] == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(page: Page, orientation: int) -> None:
    image = Image.fromarray(
        np.kron(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8), np.ones((32, 32, 1), np.uint8))
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = call(
        page,
        BYTES + CREATE + "const r = await remover.convert(file('picture')); return bytes(r.image)",
        {"picture": encoded(image, "JPEG", quality=95, exif=exif)},
    )
    from PIL import ImageOps

    stored = Image.open(io.BytesIO(base64.b64decode(encoded(image, "JPEG", quality=95, exif=exif))))
    expected = np.asarray(ImageOps.exif_transpose(stored))
    actual = decoded(out)[..., :3]
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).mean() < 3


def test_outlines_equal_the_python_runners(page: Page) -> None:
    from u2net.contours import contours, svg_path

    rng = np.random.default_rng(3)
    for tolerance in (0.0, 1.3):
        for density, shape in ((0.5, (13, 17)), (0.9, (20, 11)), (0.0, (3, 3)), (1.0, (2, 5))):
            mask = rng.random(shape) < density
            mask = np.kron(mask, np.ones((3, 2), bool)) if tolerance else mask
            path = call(
                page,
                "return api.svgPath(api.contours(Uint8Array.from(x.alpha), x.height, x.width, x.tolerance))",
                {
                    "alpha": (mask * 255).ravel().tolist(),
                    "height": mask.shape[0],
                    "width": mask.shape[1],
                    "tolerance": tolerance,
                },
            )
            assert path == svg_path(contours(mask, tolerance))


# ---- output ---------------------------------------------------------------------------------------------------------


def test_formats_and_backgrounds(page: Page) -> None:
    out = call(
        page,
        BYTES
        + CREATE
        + """
        const photo = file('picture'); const result = {};
        const put = async (name, options) => {
          const r = await remover.cutout(photo, { refine: 'fast', ...options });
          result[name] = await bytes(r.image);
          return r;
        };
        const png = await put('png', {}); result.parts = png.timings; result.backend = png.backend;
        await put('webp', { output: 'webp' });
        await put('jpeg', { output: 'jpeg', background: '#00ff00' });
        await put('white', { output: 'jpeg' });
        await put('gradient', { background: { stops: ['#000', '#fff'], angle: 90 } });
        await put('picture', { background: { image: file('behind') } });
        const bitmap = await remover.cutout(photo, { output: 'bitmap' });
        result.bitmap = [bitmap.image instanceof ImageBitmap, bitmap.image.width, bitmap.image.height];
        const made = await createImageBitmap(photo);
        result.fromBitmap = await bytes((await remover.cutout(made, { refine: 'fast' })).image);
        const back = await remover.convert(new Blob([await png.image.arrayBuffer()]), { output: 'webp' });
        result.back = await bytes(back.image);
        return result""",
        {"picture": encoded(scene(300, 200), "PNG"), "behind": encoded(Image.new("RGB", (10, 30), (0, 0, 255)), "PNG")},
    )
    assert "error" not in out, out
    rgb = np.asarray(scene(300, 200)).astype(int)
    png = decoded(out["png"]).astype(int)
    alpha = png[..., 3:]
    webp = decoded(out["webp"]).astype(int)
    assert np.array_equal(webp[..., 3], png[..., 3]), "alpha of a WebP is lossless"
    visible = png[..., 3] > 128
    assert visible.any()
    assert np.abs(webp[..., :3] - rgb)[visible].mean() < 12
    back = decoded(out["back"]).astype(int)
    assert np.array_equal(back[..., 3], png[..., 3])

    def over(behind: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
        return (rgb * alpha + np.asarray(behind) * (255 - alpha)) / 255

    assert np.abs(decoded(out["jpeg"]) - over((0, 255, 0))).mean() < 6
    assert np.abs(decoded(out["white"]) - over((255, 255, 255))).mean() < 6
    ramp = np.linspace(0, 255, 300)[None, :, None]
    assert np.abs(decoded(out["gradient"])[..., :3] - over(ramp)).max() <= 4
    assert np.abs(decoded(out["picture"])[..., :3] - over((0, 0, 255))).max() <= 4
    assert out["bitmap"] == [True, 300, 200]
    assert np.array_equal(decoded(out["fromBitmap"]), decoded(out["png"]))
    assert out["backend"] == "engine"
    parts = dict(out["parts"])
    assert all(value >= 0 for value in parts.values())
    assert sum(value for name, value in parts.items() if name != "totalMs") <= parts["totalMs"] + 1


def test_what_only_a_browser_knows_to_be_wrong(page: Page) -> None:
    """Colours; everything else is checked before, by name (web/test/options.test.ts)."""
    for background in ("no colour", {"stops": ["red", "no colour"]}):
        out = call(
            page,
            BYTES + CREATE + "await remover.cutout(file('picture'), x.cutout)",
            {"picture": encoded(scene(), "PNG"), "cutout": {"background": background}},
        )
        assert out["error"] == "ConfigError", out
        assert "CSS colour" in out["message"]


# ---- bad pictures ---------------------------------------------------------------------------------------------------


def animated(form: str) -> bytes:
    file = io.BytesIO()
    scene(60, 50).save(file, form, save_all=True, append_images=[scene(60, 50, seed=1)])
    return file.getvalue()


def bad_pictures() -> dict[str, tuple[bytes, str]]:
    png = base64.b64decode(encoded(scene(), "PNG"))
    huge = bytearray(png)
    huge[16:24] = (20_000).to_bytes(4, "big") + (15_000).to_bytes(4, "big")  # 300 MP, as its header says
    jpeg = base64.b64decode(encoded(scene(), "JPEG"))
    lying = bytearray(jpeg)
    at = lying.index(b"\xff\xc0")
    lying[at + 5 : at + 9] = (60_000).to_bytes(2, "big") * 2
    return {
        "empty": (b"", "EmptyImageError"),
        "text": (b"hello, I am no picture", "UnsupportedImageError"),
        "svg": (
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
            "UnsupportedImageError",
        ),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400), "UnsupportedImageError"),
        "animated gif": (animated("GIF"), "AnimatedImageError"),
        "animated webp": (animated("WEBP"), "AnimatedImageError"),
        "animated png": (animated("PNG"), "AnimatedImageError"),
        "300 megapixels": (bytes(huge), "ImageTooLargeError"),
        "3.6 gigapixels": (bytes(lying), "ImageTooLargeError"),
        "half a header": (png[:20], "UnsupportedImageError"),
        "damaged png": (png[:60] + bytes(len(png) - 60), "CorruptImageError"),
        "damaged jpeg": (b"\xff\xd8\xff\xe0" + bytes(500), "CorruptImageError"),
        "no pixels": (b"GIF89a\0\0\0\0\0\0\0;", "EmptyImageError"),
    }


def test_bad_pictures_get_typed_errors_and_do_no_harm(page: Page) -> None:
    cases = bad_pictures()
    out = call(
        page,
        CREATE
        + BYTES
        + """
        const answers = {};
        for (const [name, text] of Object.entries(x.cases)) {
          const blob = new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: 'image/png' });
          const failed = (e) => [e.name, e instanceof api.ImageError, e.message];
          answers[name] = await remover.cutout(blob).then(() => 'done', failed);
        }
        answers.wrong = await remover.cutout({}).catch((e) => [e.name, e instanceof api.RemoverError]);
        const good = await remover.cutout(file('picture'));
        return { answers, good: good.width }""",
        {
            "cases": {name: base64.b64encode(data).decode() for name, (data, _) in cases.items()},
            "picture": encoded(scene(), "PNG"),
        },
    )
    assert "error" not in out, out
    for name, (_, error) in cases.items():
        assert out["answers"][name][:2] == [error, True], (name, out["answers"][name])
        assert "\n" not in out["answers"][name][2]
    assert out["answers"]["wrong"][:2] == ["ConfigError", True]
    assert out["good"] == 360


def test_animation_gives_its_first_frame_where_that_is_asked_for(page: Page) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    out = call(
        page,
        BYTES
        + CREATE
        + "const r = await remover.convert(file('gif'), { animation: 'first-frame' });"
        + "return { png: await bytes(r.image), notes: r.notes }",
        {"gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])},
    )
    assert np.array_equal(decoded(out["png"])[15, 20], (255, 0, 0, 255))
    assert any("first frame" in note for note in out["notes"])


# ---- loading --------------------------------------------------------------------------------------------------------

INFO = CREATE + "return remover.info"
HERE = {
    "options": {"mode": "main"}
}  # a worker's script is the site's to keep; what the package keeps is looked at here


def test_loads_with_progress_and_threads(page: Page, packed_bundle: Path) -> None:
    out = call(
        page,
        "const seen = []; const remover = await api.createRemover({ base: 'model', onProgress: (p) => seen.push(p) });"
        "return { info: remover.info, seen }",
    )
    assert "error" not in out, out
    size = (packed_bundle / "int8.u2e").stat().st_size
    phases = list(dict.fromkeys(step["phase"] for step in out["seen"]))
    assert phases == ["manifest", "download", "compile", "ready"]
    loaded = [step["loaded"] for step in out["seen"]]
    assert loaded == sorted(loaded)
    assert loaded[-1] == out["seen"][-1]["total"] == size
    info = out["info"]
    assert info["backend"] == "engine"
    assert info["webgpuReason"]
    assert info["threads"] > 1
    assert "threadsReason" not in info or info["threadsReason"] is None


def test_main_thread_mode(page: Page) -> None:
    out = call(
        page,
        BYTES + "const make = (mode) => api.createRemover({ base: 'model/', device: 'wasm', mode });"
        "const [here, there] = [await make('main'), await make('worker')]; const alphas = [];"
        "for (const remover of [here, there]) { const r = await remover.cutout(file('picture'), { output: 'alpha' });"
        " alphas.push(await bytes(r.image)); await remover.dispose(); }"
        "const late = await here.cutout(file('picture')).catch((e) => e.name);"
        "const later = await there.cutout(file('picture')).catch((e) => e.name);"
        "return { alphas, late, later }",
        {"picture": encoded(scene(), "PNG")},
    )
    assert out["alphas"][0] == out["alphas"][1]
    assert (out["late"], out["later"]) == ("DisposedError", "DisposedError")


def test_second_visit_needs_no_network(page: Page, host: WebHost) -> None:
    def fetched() -> list[str]:
        return sorted(path.rsplit("/", 1)[1] for _, path, _ in host.requests if "/model/" in path)

    assert call(page, INFO)["backend"] == "engine"
    assert fetched() == ["int8.u2e", "manifest.json"]
    host.requests.clear()
    assert call(page, INFO, HERE)["backend"] == "engine"
    assert fetched() == ["manifest.json"]
    host.stop()
    assert call(page, INFO, HERE)["backend"] == "engine"
    left = call(
        page,
        "const first = await api.clearCache(); const second = await api.clearCache();"
        "return [first, second, await api.createRemover({ base: 'model/', mode: 'main' }).catch((e) => e.name)]",
    )
    assert left == [True, False, "DownloadError"]
    host.start()


@pytest.mark.parametrize("name", ["int8.u2e", "ort-wasm-simd-threaded.wasm"])
def test_altered_in_transit_is_refused(chromium: Browser, packed_bundle: Path, tiny_bundle: Path, name: str) -> None:
    with host_of(packed_bundle if name == "int8.u2e" else tiny_bundle) as host:
        for page in visit(chromium, host):
            refuses(page, host, name)


def refuses(page: Page, host: WebHost, name: str) -> None:
    host.altered.add(name)
    out = call(page, INFO)
    assert (out["error"], out["code"]) == ("IntegrityError", "integrity")
    assert name in out["message"]
    kept = page.evaluate("async () => (await (await caches.open('u2net-remover-1')).keys()).map((r) => r.url)")
    assert not any(name in url for url in kept), "what was refused is not kept"
    host.altered.clear()
    assert "error" not in call(page, INFO), "the page recovers"


def test_altered_in_the_cache_is_refused(page: Page, host: WebHost) -> None:
    assert call(page, INFO, HERE)["notes"] == []
    alter = """async () => {
      const cache = await caches.open('u2net-remover-1');
      const [key] = (await cache.keys()).filter((request) => request.url.includes('int8.u2e'));
      const bytes = new Uint8Array(await (await cache.match(key)).arrayBuffer());
      bytes[bytes.length >> 1] ^= 1;
      await cache.put(key, new Response(bytes));
    }"""
    page.evaluate(alter)
    host.requests.clear()
    info = call(page, INFO, HERE)
    assert "altered" in info["notes"][0]
    assert ("GET", "/app/model/int8.u2e", "") in host.requests, "fetched anew"
    page.evaluate(alter)
    host.stop()
    assert call(page, INFO, HERE)["error"] == "DownloadError", "never used, not even without a network"
    host.start()
    assert call(page, INFO, HERE)["backend"] == "engine"


def test_pinned_manifest(page: Page, packed_bundle: Path) -> None:
    import hashlib

    digest = hashlib.sha384((packed_bundle / "manifest.json").read_bytes()).digest()
    right = "sha384-" + base64.b64encode(digest).decode()
    assert call(page, INFO, {"options": {"integrity": right}})["backend"] == "engine"
    wrong = "sha384-" + base64.b64encode(bytes(48)).decode()
    assert call(page, INFO, {"options": {"integrity": wrong}})["error"] == "IntegrityError"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_is_resumed(reference_page: Page, reference_host: WebHost, ranges: bool) -> None:
    reference_host.ranges = ranges
    reference_host.cut_once["ort-wasm-simd-threaded.wasm"] = 1_000_000
    assert call(reference_page, INFO)["backend"] == "onnxruntime-wasm"
    asked = [wanted for _, path, wanted in reference_host.requests if path.endswith(".wasm")]
    assert len(asked) == 2
    assert 0 < int(asked[1].removeprefix("bytes=").removesuffix("-")) <= 1_000_000


def test_an_aborted_download_goes_on_later(reference_page: Page, reference_host: WebHost) -> None:
    """In the worker, where an abort has to arrive while bytes flow; what has come is asked for no more."""
    reference_host.held["ort-wasm-simd-threaded.wasm"] = 4_000_000
    out = call(
        reference_page,
        "const abort = new AbortController();"
        "const made = api.createRemover({ base: 'model/', signal: abort.signal,"
        " onProgress: (p) => { if (p.loaded > 3e6) abort.abort(); } });"
        "const error = await made.catch((e) => e.name); await new Promise((r) => setTimeout(r, 700)); return error",
    )
    assert out == "AbortError"
    reference_host.held.clear()
    reference_host.requests.clear()
    assert call(reference_page, INFO)["backend"] == "onnxruntime-wasm"
    [asked] = [wanted for _, path, wanted in reference_host.requests if path.endswith(".wasm")]
    assert 2_000_000 < int(asked.removeprefix("bytes=").removesuffix("-")) <= 4_000_000


def test_a_bad_manifest_fetches_nothing(page: Page, host: WebHost, packed_bundle: Path) -> None:
    manifest = json.loads((packed_bundle / "manifest.json").read_text())
    evil = {**manifest["files"][0], "path": "../evil.u2e"}
    host.pages["/app/model/manifest.json"] = json.dumps({**manifest, "files": [evil]})
    host.requests.clear()
    assert call(page, INFO)["error"] == "ManifestError"
    assert not any("evil" in path for _, path, _ in host.requests)


def test_a_model_that_is_none(page: Page, host: WebHost, packed_bundle: Path) -> None:
    import hashlib

    manifest = json.loads((packed_bundle / "manifest.json").read_text())
    junk = "<p>no model</p>"
    host.pages["/app/model/junk.u2e"] = junk
    entry = {
        "path": "junk.u2e",
        "role": "model",
        "precision": "int8",
        "format": "u2e",
        "bytes": len(junk),
        "sha256": hashlib.sha256(junk.encode()).hexdigest(),
    }
    host.pages["/app/model/manifest.json"] = json.dumps({**manifest, "files": [entry, *manifest["files"]]})
    assert call(page, INFO)["error"] == "EngineError"


def test_a_missing_bundle(page: Page) -> None:
    assert call(page, "await api.createRemover({ base: 'nowhere/' })")["error"] == "DownloadError"
    assert call(page, "await api.createRemover({ base: 'file:///etc/' })")["error"] == "DownloadError"
    assert call(page, "await api.createRemover({ base: 'data:text/plain,x' })")["error"] == "ConfigError"


def test_abort_and_order(page: Page) -> None:
    out = call(
        page,
        BYTES
        + CREATE
        + """
        const photo = file('picture'); const order = []; const abort = new AbortController();
        const first = remover.cutout(photo).then(() => order.push('first'));
        const second = remover.cutout(photo, { signal: abort.signal }).catch((e) => order.push(e.name));
        const third = remover.cutout(photo).then(() => order.push('third'));
        abort.abort(); await Promise.all([first, second, third]);
        const gone = remover.cutout(photo).catch((e) => e.name); await remover.dispose();
        return [order, await gone]""",
        {"picture": encoded(scene(), "PNG")},
    )
    assert out == [["AbortError", "first", "third"], "DisposedError"]


# ---- backends -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def webgpu_bundle(web_dist: Path) -> Path:
    """64×64, for a software adapter computes it slowly."""
    return probe_bundle("probe-webgpu", "--webgpu", size=64)


def test_webgpu_is_used_where_it_is_right_and_refused_where_not(
    launch: Callable[..., Browser], webgpu_bundle: Path, tmp_path: Path
) -> None:
    """On Chromium's software adapter, which computes properly and slowly, by name only."""
    altered = tmp_path / "altered"
    shutil.copytree(webgpu_bundle, altered)
    manifest = json.loads((altered / "manifest.json").read_text())
    answer = bytearray(base64.b64decode(manifest["self_test"]["alpha"]))
    manifest["self_test"]["alpha"] = base64.b64encode(bytes(255 - value for value in answer)).decode()
    (altered / "manifest.json").write_text(json.dumps(manifest))
    picture = {"picture": encoded(scene(100, 80), "PNG")}
    run = BYTES + "const remover = await api.createRemover({ base: 'model/', device: x.device });"
    run += "const r = await remover.cutout(file('picture'), { output: 'alpha' });"
    run += "return { info: remover.info, backend: r.backend, alpha: await bytes(r.image) }"
    answers = {}
    browser = launch("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    try:
        for name, folder, device in (
            ("right", webgpu_bundle, "webgpu"),
            ("wrong", altered, "webgpu"),
            ("auto", webgpu_bundle, "auto"),
        ):
            with host_of(folder) as host, browser.new_context() as context:
                page = context.new_page()
                page.goto(f"{host.origin}/app/")
                if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
                    pytest.skip("this Chromium has no software WebGPU")
                answers[name] = call(page, run, {**picture, "device": device})
                assert "error" not in answers[name], answers[name]
    finally:
        browser.close()
    assert answers["right"]["backend"] == answers["right"]["info"]["backend"] == "onnxruntime-webgpu"
    assert answers["right"]["info"]["selfTestDifference"] < 0.02
    assert answers["wrong"]["backend"] == "onnxruntime-wasm"
    assert "self-test" in answers["wrong"]["info"]["webgpuReason"]
    assert answers["auto"]["backend"] == "onnxruntime-wasm"
    assert "not asked for" in answers["auto"]["info"]["webgpuReason"]
    difference = decoded(answers["right"]["alpha"]).astype(int) - decoded(answers["wrong"]["alpha"])
    assert np.abs(difference).max() <= 2


def test_image_interface(chromium: Browser, web_dist: Path) -> None:
    """A graph that takes uint8 RGBA: the same mask, but for the rounding of its input."""
    bundle = probe_bundle("probe-image", interface="image")
    image = scene()
    with host_of(bundle) as host, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{host.origin}/app/")
        out = call(
            page,
            BYTES
            + CREATE
            + "return bytes((await remover.cutout(file('picture'), { output: 'alpha', refine: 'fast' })).image)",
            {"picture": encoded(image, "PNG")},
        )
    expected = Remover(Session(bundle / "fp32.onnx", threads=1), refinement=FAST).cutout(np.asarray(image)).alpha
    assert np.abs(decoded(out).astype(int) - expected).max() <= 1


def test_resize_reference() -> None:
    """The resize that both runners follow is plain bilinear: a ramp stays a ramp."""
    ramp = np.tile(np.arange(10, dtype=np.float32), (4, 1))
    assert np.allclose(resize_bilinear(ramp, 4, 20)[0, 1:-1], np.arange(0.25, 9, 0.5))


def test_isolation_headers_are_the_ones_in_the_recipe() -> None:
    text = (ROOT / "web" / "demo" / "static" / "_headers").read_text()
    for name, value in ISOLATION.items():
        assert f"{name}: {value}" in text
