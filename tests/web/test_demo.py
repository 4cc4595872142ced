"""The demo page in real Chromium, used as a person would."""

# ruff: noqa: F811 – pytest's fixtures are imported and then named as parameters

from __future__ import annotations

import base64
import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.support.web_browser import chromium, host_of, launch, probe_bundle, real_bundle, tiny_bundle, web_dist  # noqa: F401
from tests.support.web_host import WebHost
from tests.web.test_package import bad_pictures, scene
from u2net.infer import Session
from u2net.remover import Remover

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Download, Page

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("web")]

LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((entry) => entry.duration)))
  .observe({ type: 'longtask', buffered: true });
"""

#: What phones have: somewhere to share a picture.
SHARING = """
navigator.canShare = ({ files }) => files.length > 0;
navigator.share = async ({ files: [{ name, type }] }) => { window.shared = [name, type]; };
"""


@pytest.fixture
def host(tiny_bundle: Path) -> Iterator[WebHost]:
    """A plain static host that sends no header of its own: isolation and policy come from the service worker."""
    with host_of(tiny_bundle, headers={}) as server:
        yield server


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    with chromium.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900}) as context:
        yield context


def visit(context: BrowserContext, host: WebHost, state: str = "ready", kept: bool = True) -> Page:
    """The page once its model is ready and, where there can be one, its service worker is at work."""
    page = context.new_page()
    page.goto(f"{host.origin}/app/demo/")
    page.locator(f"html[data-state={state}]").wait_for(timeout=60_000, state="attached")
    if state == "ready" and kept:
        page.locator("#load-text", has_text="works offline").wait_for(timeout=60_000, state="attached")
    return page


def picture(image: Image.Image, name: str = "photo.png", form: str = "PNG") -> dict[str, Any]:
    file = io.BytesIO()
    image.save(file, form)
    return {"name": name, "mimeType": f"image/{form.lower()}", "buffer": file.getvalue()}


def choose(page: Page, *files: Any) -> None:
    """Pick files and wait until every card is done or failed."""
    before = page.locator(".card").count()
    page.set_input_files("#files", list(files))
    page.locator(".card").nth(before + len(files) - 1).wait_for()
    wait_done(page)


def wait_done(page: Page) -> None:
    count = page.locator(".card").count()
    page.locator(".card.done, .card.failed").nth(count - 1).wait_for(timeout=90_000)


def drop(page: Page, file: Path) -> None:
    """Drop a file on the page, as a drag from the desktop does."""
    data = base64.b64encode(file.read_bytes()).decode()
    page.evaluate(
        """([data, name]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: 'image/jpeg' }));
          const event = new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: transfer });
          document.getElementById('drop').dispatchEvent(event);
        }""",
        [data, file.name],
    )
    page.locator(".card").first.wait_for()
    wait_done(page)


def downloaded(page: Page, selector: str = ".save") -> tuple[str, bytes]:
    with page.expect_download() as wait:
        page.locator(selector).first.click()
    download: Download = wait.value
    return download.suggested_filename, download.path().read_bytes()


def paint(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A stroke across the first card's picture, in parts of its sides, until it is done."""
    box = page.locator(".card .stage").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0] * box["width"], box["y"] + end[1] * box["height"], steps=4)
    page.mouse.up()
    page.locator("#status", has_text=re.compile("Erased|Restored")).wait_for(state="attached")


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))


def iou(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    union = ((a > 128) | (b > 128)).sum()
    return float(((a > 128) & (b > 128)).sum() / union) if union else 1.0


def test_photograph_gives_the_python_runners_cutout_and_sends_nothing(
    context: BrowserContext, real_bundle: Path, shared: Path
) -> None:
    """Drop → download: alpha IoU ≥ 0.995, no request, no long task on the page; then once more without a server."""
    photo = shared / "data" / "eval" / "images" / "ccp-people_0559.jpg"
    expected = Remover(Session(real_bundle / "fp32.onnx", threads=1)).cutout(photo).alpha
    context.add_init_script(LONG_TASKS)
    context.add_init_script(SHARING)
    with host_of(real_bundle, headers={}) as host:
        page = visit(context, host)
        page.locator("#live[data-state=done]").wait_for(timeout=60_000)
        page.wait_for_timeout(500)
        host.requests.clear()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        seen: list[str] = []
        context.on("request", lambda request: seen.append(request.url))
        page.evaluate("() => { window.longTasks.length = 0; }")
        drop(page, photo)
        name, data = downloaded(page)
        assert re.search(r"\d\s(s|ms)", page.inner_text(".detail")), "latency is shown"
        # A repair, another frame, a shadow, and all of it shared: made here, too.
        page.get_by_role("button", name=f"Repair {photo.name}").click()
        paint(page, (0.45, 0.4), (0.55, 0.6))
        page.locator("#repair-done").click()
        wait_done(page)
        page.select_option("[name=frame]", "square")
        page.check("[name=shadow]")
        wait_done(page)
        page.get_by_role("button", name=f"Share {photo.name}").click()
        page.wait_for_function("() => window.shared")
        assert page.evaluate("window.shared") == ["ccp-people_0559-cutout.png", "image/png"]
        tasks = page.evaluate("window.longTasks")
        assert name == "ccp-people_0559-cutout.png"
        cutout = pixels(data)
        agreement = iou(cutout[..., 3], expected)
        print(f"alpha IoU against the Python runner: {agreement:.5f}; long tasks: {tasks}")
        assert agreement >= 0.995
        assert [url for url in seen if not url.startswith("blob:")] == []
        # The browser itself looks for a newer service worker some time after a visit; that is no request of the page's.
        assert [request for request in host.requests if request != ("GET", "/app/demo/sw.js", "")] == []
        assert page.inner_text("#sent b") == "0 bytes sent"
        assert not [text for text in said if "Content Security Policy" in text]
        # The browser measures tasks by the wall clock, which other work on the machine stretches.
        stretch = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert [task for task in tasks if task > 50 * stretch] == [], "no task of the page over 50 ms"
        assert "WebAssembly" not in page.inner_text("main"), "technical words are behind a disclosure"
        page.locator("#engine summary").click()
        assert "WebAssembly" in page.inner_text("#engine-facts")

        host.stop()
        page.locator("#add").wait_for()
        page.select_option("[name=frame]", "whole")
        page.uncheck("[name=shadow]")
        page.locator(".drop-card").click()
        choose(page, photo)
        again = pixels(downloaded(page)[1])
        assert np.array_equal(again, cutout)
        host.start()


def installable(page: Page) -> None:
    """What browsers ask of an installable page: a manifest with name, icons that are there, and a service worker."""
    found = page.evaluate(
        """async () => {
          const link = document.querySelector('link[rel=manifest]').href;
          const manifest = await (await fetch(link)).json();
          const icons = await Promise.all(manifest.icons.map(async ({ src, sizes }) => {
            const image = new Image(); image.src = new URL(src, link).href; await image.decode();
            return [sizes, image.naturalWidth];
          }));
          const worker = await navigator.serviceWorker.getRegistration();
          return { name: manifest.name, display: manifest.display, icons, active: Boolean(worker.active) };
        }"""
    )
    assert found["name"]
    assert found["active"]
    assert found["display"] == "standalone"
    assert found["icons"][1:] == [["192x192", 192], ["512x512", 512], ["512x512", 512]]


def test_second_visit_with_the_server_stopped(context: BrowserContext, host: WebHost) -> None:
    """The first visit loads once and fetches nothing twice; the second needs no server and has threads."""
    page = visit(context, host)
    assert not page.evaluate("crossOriginIsolated"), "the first visit is not made to load again"
    installable(page)
    page.close()
    fetched = [path for _, path, _ in host.requests if path != "/app/demo/"]  # may be pointed at another bundle by hand
    assert sorted(fetched) == sorted(set(fetched))
    host.stop()
    page = visit(context, host)
    choose(page, picture(scene()))
    assert page.locator(".card.done").count() == 1
    assert page.evaluate("crossOriginIsolated"), "the service worker adds the headers"
    assert pixels(downloaded(page)[1]).shape == (270, 360, 4)
    host.start()


def test_the_model_can_be_removed_from_the_browser(context: BrowserContext, host: WebHost) -> None:
    page = visit(context, host)
    kept = "async () => (await caches.keys()).filter((name) => name.startsWith('u2net-remover'))"
    assert page.evaluate(kept)
    page.locator("#clear").click()
    page.locator("#note", has_text="removed").wait_for()
    assert page.evaluate(kept) == []
    choose(page, picture(scene()))
    assert page.locator(".card.done").count() == 1, "what is loaded goes on working"


def test_altered_model_is_named_and_the_page_recovers(context: BrowserContext, host: WebHost) -> None:
    host.altered.add("fp32.onnx")
    page = visit(context, host, "failed")
    assert "IntegrityError" in page.inner_text("#load-text")
    page.set_input_files("#files", [picture(scene())])  # type: ignore[arg-type]
    page.wait_for_function("() => navigator.serviceWorker.controller")
    assert "IntegrityError" in page.inner_text("#load-text"), "the service worker, once there, says nothing else"
    assert "Waiting" in page.locator(".detail").inner_text(), "what is chosen before the model is there waits for it"
    host.altered.clear()
    page.locator("#retry").click()
    wait_done(page)
    assert page.locator(".card.done").count() == 1


def test_bad_files_get_a_card_and_the_page_stays_usable(context: BrowserContext, host: WebHost) -> None:
    page = visit(context, host)
    cases = bad_pictures()
    files = [{"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": data} for name, (data, _) in cases.items()]
    choose(page, *files, picture(scene()))
    texts = page.locator(".card.failed .detail").all_inner_texts()
    assert [text.rpartition(" (")[2].rstrip(")") for text in texts] == [error for _, error in cases.values()]
    assert page.locator(".card.done").count() == 1
    page.locator(".card", has_text="animated gif").get_by_role("button", name="Use first frame").click()
    wait_done(page)
    assert page.locator(".card.done").count() == 2
    assert "first frame" in page.locator(".card.done .detail").first.inner_text()


def test_formats_backgrounds_conversion_and_zip(context: BrowserContext, host: WebHost) -> None:
    page = visit(context, host)
    choose(page, picture(scene()), picture(scene(seed=1)))
    assert page.evaluate(HEADINGS) == ["Your 2 pictures"]
    cutout = pixels(downloaded(page)[1])
    page.select_option("[name=format]", "webp")
    name, data = downloaded(page)
    assert name == "photo-cutout.webp"
    assert np.array_equal(pixels(data)[..., 3], cutout[..., 3])
    page.check("[value='#000000']", force=True)
    page.select_option("[name=format]", "jpeg")
    name, data = downloaded(page)
    assert name == "photo-cutout.jpg"
    assert pixels(data)[0, 0].max() < 90
    page.check("[value=sea]", force=True)
    page.select_option("[name=format]", "png")
    name, data = downloaded(page, "#all")
    assert name == "cutouts.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["photo-cutout.png", "photo-cutout-2.png"]
        sea = pixels(archive.read("photo-cutout.png"))
    assert (sea[..., 3] == 255).all() if sea.shape[2] == 4 else True
    page.select_option("[name=for]", index=2)
    page.check("[value='#ffffff']", force=True)
    with zipfile.ZipFile(io.BytesIO(downloaded(page, "#all")[1])) as archive:
        assert np.array_equal(pixels(archive.read("photo-cutout.png")), sea), "the first keeps its own"
        assert (pixels(archive.read("photo-cutout-2.png"))[0, 0, :3] > 230).all()
    page.select_option("[name=for]", "all")
    assert page.is_checked("[value=sea]")
    page.select_option("[name=format]", "alpha")
    name, data = downloaded(page)
    assert name == "photo-mask.png"
    assert pixels(data).shape == (270, 360)
    page.check("[value=convert]", force=True)
    wait_done(page)
    page.check("[value=transparent]", force=True)
    page.select_option("[name=format]", "png")
    name, data = downloaded(page)
    assert name == "photo.png"
    assert np.array_equal(pixels(data)[..., :3], np.asarray(scene()))
    assert page.inner_text("#sent b") == "0 bytes sent"


def test_edges_are_chosen_and_a_closed_card_stops(context: BrowserContext, host: WebHost) -> None:
    """Each choice gives another matte, made anew at once; a card that is closed while it waits is not worked on."""
    page = visit(context, host)
    choose(page, picture(scene()))
    mattes = {}
    for edges in ("refined", "soft", "hard", "plain"):
        page.select_option("[name=edges]", edges)
        wait_done(page)
        mattes[edges] = pixels(downloaded(page)[1])[..., 3]
        page.select_option("[name=format]", "alpha")
        assert np.array_equal(pixels(downloaded(page)[1]), mattes[edges]), "the mask is the cut-out's"
        page.select_option("[name=format]", "png")
    assert set(np.unique(mattes["hard"])) <= {0, 255}
    soft = {edges: int(((matte > 0) & (matte < 255)).sum()) for edges, matte in mattes.items()}
    assert soft["hard"] == 0 < soft["refined"] < soft["soft"]
    assert not np.array_equal(mattes["plain"], mattes["refined"])
    page.set_input_files("#files", [picture(scene(1200, 800)), picture(scene(seed=2), "second.png")])  # type: ignore[arg-type]
    page.get_by_role("button", name="Remove photo.png from the list").nth(1).click()
    wait_done(page)
    assert page.locator(".card .name").all_inner_texts() == ["photo.png", "second.png"]
    assert page.locator(".card.failed").count() == 0


def test_camera(launch: Any, host: WebHost) -> None:
    """With Chromium's fake camera: the dialog shows it, one press takes a picture, the camera is let go."""
    browser: Browser = launch("--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    try:
        with browser.new_context(permissions=["camera"]) as context:
            page = visit(context, host)
            page.get_by_role("button", name="Use camera").click()
            page.locator("#shoot:not([disabled])").click(timeout=20_000)
            page.locator(".card").wait_for()
            wait_done(page)
            assert page.locator(".card.done .name").inner_text() == "camera.jpg"
            assert page.evaluate("document.getElementById('video').srcObject") is None
            assert page.inner_text("#sent b") == "0 bytes sent"
    finally:
        browser.close()


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has this name has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        label = "(({ ariaLabel, labels, textContent }) => ariaLabel || labels?.[0]?.textContent || textContent.trim())"
        if page.evaluate(f"{label}(document.activeElement)") == name:
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def test_from_landing_to_a_repaired_download_by_keyboard_alone(context: BrowserContext, host: WebHost) -> None:
    """Everything can be reached and worked with keys, and everything has a name."""
    page = visit(context, host)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    tab_to(page, "Choose pictures")
    with page.expect_file_chooser() as chooser:
        # Keys reach the page on another way than the request to catch the dialog, and may overtake it: an answer of the
        # page comes after both.
        assert page.evaluate("document.activeElement.id") == "files"
        page.keyboard.press("Enter")
    chooser.value.set_files(picture(scene()))  # type: ignore[arg-type]
    page.locator(".card").wait_for()
    wait_done(page)
    before = pixels(downloaded(page)[1])[..., 3]
    page.get_by_role("slider", name="How much of photo.png to show without its background, in percent").focus()
    split = page.locator(".card .split")
    assert split.input_value() == "100", "all of the result is seen first"
    page.keyboard.press("ArrowLeft")
    assert split.input_value() == "99"
    assert page.evaluate("document.querySelector('.card .stage').style.getPropertyValue('--split')") == "99%"
    page.get_by_role("group", name="photo.png").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    zoomed = page.evaluate(PLACE)
    assert zoomed[0] == pytest.approx(1.4)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(PLACE)[1] > zoomed[1]
    page.keyboard.press("0")
    assert page.evaluate(PLACE) == [1, 0, 0]

    tab_to(page, "Repair photo.png")
    page.keyboard.press("Enter")
    status = page.locator("#status")

    def said(text: str) -> None:
        status.filter(has_text=text).wait_for(state="attached")

    page.locator("[role=application]:focus").wait_for()
    page.keyboard.down("Space")  # in the middle, and on while the brush moves
    page.keyboard.press("ArrowRight")
    page.keyboard.up("Space")
    said("Erased.")
    page.keyboard.press("Control+z")
    said("Undone.")
    page.keyboard.press("Control+y")
    said("Done again.")
    page.keyboard.press("r")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("]")
    page.keyboard.press("Enter")
    said("Restored.")
    tab_to(page, "Fill holes")
    page.keyboard.press("Enter")
    said("Holes are filled.")
    tab_to(page, "Done")
    page.keyboard.press("Enter")
    wait_done(page)
    page.locator(".card .stage:focus").wait_for()
    tab_to(page, "Download photo.png")
    with page.expect_download() as wait:
        page.keyboard.press("Enter")
    after = pixels(wait.value.path().read_bytes())[..., 3]
    assert after[135, 180] == before[135, 180] == 255, "the hole was filled"
    assert (after.astype(int) - before).max() > 200, "something outside was restored"
    page.get_by_role("radio", name="Convert").press("Space")
    wait_done(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, a, img, svg:not([aria-hidden])')]
          .filter((e) => e.checkVisibility())
          .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.alt || e.labels?.length
            || e.getAttribute('aria-labelledby'))).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    page.get_by_role("button", name="Remove photo.png from the list").press("Enter")
    assert page.locator(".card").count() == 0


def test_repair_with_the_mouse(context: BrowserContext, host: WebHost) -> None:
    """What is painted is what is saved, in every format and frame; the network's edges do not undo it."""
    page = visit(context, host)
    image = Image.new("RGB", (360, 270), (40, 60, 220))
    image.paste((220, 60, 40), (90, 60, 270, 220))
    image.paste((220, 60, 40), (20, 20, 50, 50))  # a second subject
    choose(page, picture(image))
    before = pixels(downloaded(page)[1])[..., 3]
    assert before[35, 35] > 128
    page.get_by_role("button", name="Repair photo.png").click()
    page.locator("#repair-done").click()
    page.locator(".card.done .detail").wait_for()
    assert "repaired" not in page.locator(".detail").inner_text(), "nothing was changed"
    page.get_by_role("button", name="Repair photo.png").click()
    page.locator("#follow").uncheck()
    page.locator(".card .stage").hover()
    page.mouse.wheel(0, -200)
    assert int(page.input_value("#brush-size")) > 24, "the wheel sizes the brush"
    paint(page, (0.5, 0.5), (0.55, 0.5))
    page.check("[name=tool][value=keep]", force=True)
    box = page.locator(".card .stage").bounding_box()
    assert box
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.3 * box["height"])
    page.locator("#status", has_text="Only this subject is left").wait_for(state="attached")
    page.locator("#repair-done").click()
    page.locator(".card.done .detail", has_text="repaired").wait_for()
    after = pixels(downloaded(page)[1])[..., 3]
    assert after[135, 180] == 0
    assert after[35, 35] == 0
    assert after[90, 180] == before[90, 180] == 255
    page.select_option("[name=edges]", "hard")
    page.select_option("[name=format]", "alpha")
    assert np.array_equal(pixels(downloaded(page)[1]), after)
    page.select_option("[name=frame]", "subject")
    cut = pixels(downloaded(page)[1])
    rows, columns = np.flatnonzero((after >= 128).any(1)), np.flatnonzero((after >= 128).any(0))
    margin = round(0.05 * max(np.ptp(rows) + 1, np.ptp(columns) + 1))
    part = after[rows[0] - margin : rows[-1] + margin + 1, columns[0] - margin : columns[-1] + margin + 1]
    assert np.array_equal(cut, part), "the crop is to what was left"
    assert page.inner_text("#sent b") == "0 bytes sent"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_in_any_state(chromium: Browser, host: WebHost, scheme: str) -> None:
    """Error, landing, done, several pictures of which one failed and one shows nothing."""
    from axe_playwright_python.sync_playwright import Axe

    def violations(page: Page) -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]

    settings: Any = {"color_scheme": scheme, "reduced_motion": "reduce", "viewport": {"width": 390, "height": 844}}
    with chromium.new_context(**settings, bypass_csp=True) as context:
        host.altered.add("fp32.onnx")
        page = visit(context, host, "failed")
        assert violations(page) == []
        host.altered.clear()
        page.locator("#retry").click()
        page.locator("#live[data-state=done]").wait_for(timeout=60_000)
        page.locator("html[data-state=ready]").wait_for(state="attached")
        assert violations(page) == []
        choose(page, picture(scene()))
        assert violations(page) == []
        page.locator(".mend").click()
        paint(page, (0.5, 0.5), (0.5, 0.6))
        assert violations(page) == []
        page.locator("#repair-done").click()
        wait_done(page)
        nothing = picture(Image.new("RGB", (200, 150), (40, 60, 200)), "sea.png")
        choose(page, nothing, {"name": "bad.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"})
        assert violations(page) == []


#: Scale and corner of the picture in the first card.
PLACE = """() => {
  const { a, e, f } = new DOMMatrix(getComputedStyle(document.querySelector('.card .pane')).transform);
  return [a, e, f];
}"""


def test_zoom_by_wheel_and_pinch(context: BrowserContext, host: WebHost) -> None:
    """What lies under the mouse stays there; dragging moves; two fingers zoom; nothing can be dragged out of sight."""
    page = visit(context, host)
    choose(page, picture(scene()))
    box = page.locator(".card .stage").bounding_box()
    assert box
    x, y = box["width"] / 4, box["height"] / 4
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.wheel(0, -60)
    page.wait_for_function("document.querySelector('.card .zoomed')")
    scale, left, top = page.evaluate(PLACE)
    assert scale > 1.2
    assert left == pytest.approx(x * (1 - scale), abs=2)
    assert top == pytest.approx(y * (1 - scale), abs=2)
    page.mouse.down()
    page.mouse.move(box["x"] + x + 2000, box["y"] + y)
    page.mouse.up()
    assert page.evaluate(PLACE)[1] == 0
    assert page.locator(".card .split").input_value() == "100", "the divider stays where it was"
    page.locator(".card .zoom-fit").click()
    page.evaluate(
        """() => {
          const stage = document.querySelector('.card .stage'), { left, top } = stage.getBoundingClientRect();
          stage.setPointerCapture = () => {};
          const send = (type, pointerId, x) => stage.dispatchEvent(
            new PointerEvent(type, { pointerId, clientX: left + x, clientY: top + 50, bubbles: true }));
          send('pointerdown', 1, 50); send('pointerdown', 2, 100); send('pointermove', 2, 150);
          send('pointerup', 1, 50); send('pointerup', 2, 150);
        }"""
    )
    assert page.evaluate(PLACE)[0] == pytest.approx(2)
    page.evaluate("() => scrollTo(0, 0)")


HEADINGS = "() => [...document.querySelectorAll('h1')].filter((e) => e.checkVisibility()).map((e) => e.textContent)"


def test_frames(context: BrowserContext, host: WebHost) -> None:
    """What is seen is what is saved: the subject with a margin, or a square around it, in any format, with a shadow."""
    page = visit(context, host)
    assert len(page.evaluate(HEADINGS)) == 1
    choose(page, picture(scene()))
    assert page.evaluate(HEADINGS) == ["Your picture"]
    matte = pixels(downloaded(page, ".card .save")[1])[..., 3]
    rows, columns = np.flatnonzero((matte >= 128).any(1)), np.flatnonzero((matte >= 128).any(0))
    high, wide = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    for frame, room in (("subject", 0.05), ("square", 0.08)):
        page.select_option("[name=frame]", frame)
        ratio = page.evaluate(
            "(() => { const { width, height } = document.querySelector('.card .stage')"
            ".getBoundingClientRect(); return width / height; })()"
        )
        cut = pixels(downloaded(page, ".card .save")[1])
        margin = round(room * max(wide, high))
        if frame == "square":
            assert cut.shape == (max(wide, high) + 2 * margin, max(wide, high) + 2 * margin, 4)
        else:
            assert cut.shape[0] <= high + 2 * margin
            assert cut.shape[1] <= wide + 2 * margin
            assert cut.shape[:2] != matte.shape
        assert ratio == pytest.approx(cut.shape[1] / cut.shape[0], abs=0.02)
    page.select_option("[name=format]", "alpha")
    mask = pixels(downloaded(page, ".card .save")[1])
    assert np.array_equal(mask, cut[..., 3])
    page.check("[name=shadow]")
    wait_done(page)
    assert np.array_equal(pixels(downloaded(page, ".card .save")[1]), mask), "the shadow is no part of the mask"
    page.select_option("[name=format]", "png")
    shaded = pixels(downloaded(page, ".card .save")[1])[..., 3].astype(int)
    assert (shaded >= mask).all()
    assert 0 < (shaded - mask).max() < 128


def test_paste_and_copy(context: BrowserContext, host: WebHost) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit(context, host)
    data = base64.b64encode(picture(scene())["buffer"]).decode()
    page.evaluate(
        """(data) => {
          const transfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          transfer.items.add(new File([bytes], 'pasted.png', { type: 'image/png' }));
          const init = { clipboardData: transfer, bubbles: true, cancelable: true };
          document.dispatchEvent(new ClipboardEvent('paste', init));
        }""",
        data,
    )
    page.locator(".card").first.wait_for()
    wait_done(page)
    page.select_option("[name=format]", "webp")
    page.get_by_role("button", name="Copy pasted.png").click()
    page.locator("#note", has_text="on the clipboard").wait_for()
    size = page.evaluate(
        """async () => {
          const [item] = await navigator.clipboard.read();
          const { width, height } = await createImageBitmap(await item.getType('image/png'));
          return [width, height];
        }"""
    )
    assert size == [360, 270]


def test_nothing_found_is_said(context: BrowserContext, host: WebHost) -> None:
    page = visit(context, host)
    choose(page, picture(Image.new("RGB", (200, 150), (40, 60, 200)), "sea.png"))
    assert "Nothing was found" in page.locator(".card.done .detail").inner_text()
    assert "Nothing was found" in page.locator("[role=status]#status").inner_text()
    assert not page.locator(".card .save").is_visible()
    page.locator(".mend").click()
    paint(page, (0.4, 0.5), (0.6, 0.5))
    page.locator("#repair-done").click()
    wait_done(page)
    alpha = pixels(downloaded(page)[1])[..., 3]
    assert alpha[75, 100] == 255, "what was not found can be painted in"
    assert alpha[10, 10] == 0


def test_sample_is_cut_out_live_and_can_be_tried(context: BrowserContext, host: WebHost) -> None:
    """The landing page's own picture is really cut out here; a sample takes two presses to its download."""
    page = visit(context, host)
    page.locator("#live[data-state=done]").wait_for(timeout=60_000)
    opaque = page.evaluate(
        """async () => {
          const image = await createImageBitmap(document.querySelector('#live .after'));
          const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
          context.drawImage(image, 0, 0);
          const { data } = context.getImageData(0, 0, image.width, image.height);
          return data.filter((_, i) => i % 4 === 3 && data[i] > 128).length / (data.length / 4);
        }"""
    )
    assert 0 < opaque < 1
    host.requests.clear()
    page.locator("[data-sample=bottle]").click()
    page.locator(".card").wait_for()
    wait_done(page)
    name, data = downloaded(page, ".card .save")
    assert name == "bottle-cutout.png"
    assert pixels(data).shape == (540, 720, 4)
    assert page.inner_text("#sent b") == "0 bytes sent"
    assert [path for _, path, _ in host.requests if not path.endswith("/sw.js")] == []


def test_without_a_service_worker_nothing_is_claimed(chromium: Browser, host: WebHost) -> None:
    with chromium.new_context(service_workers="block") as context:
        page = visit(context, host, kept=False)
        choose(page, picture(scene()))
        assert page.inner_text("#sent b") == "Bytes sent: not counted"
        assert "offline" not in page.inner_text("#load-text", timeout=1000)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_layout(chromium: Browser, host: WebHost, width: int, scheme: str) -> None:
    """Nothing sticks out, text is readable, targets are large enough for a thumb."""
    with chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = visit(context, host)
        for step in ("landing", "one picture", "repair", "several"):
            if step == "one picture":
                choose(page, picture(scene()))
                shown = page.evaluate(
                    "['.stage', '.save'].map((part) => document.querySelector(`.card ${part}`)"
                    ".getBoundingClientRect()).every(({ top, bottom }) => top >= 0 && bottom <= innerHeight)"
                )
                assert shown, "the result and its download are on the first screen"
            if step == "repair":
                page.locator(".mend").click()
                page.locator("#repair").wait_for()
            if step == "several":
                page.locator("#repair-done").click()
                choose(
                    page,
                    picture(scene()),
                    picture(scene(90, 200), "a very long name of a picture, so long that no card can hold it all.png"),
                )
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            small = page.evaluate(
                """() => [...document.querySelectorAll('button, select, label:has(input)')]
                  .filter((e) => e.offsetParent && !e.classList.contains('link') && !e.closest('.visually-hidden'))
                  .map((e) => [e.textContent.trim() || e.title, e.getBoundingClientRect().height])
                  .filter(([, h]) => h < 40)"""
            )
            assert small == []
            faint = page.evaluate(CONTRAST)
            assert faint == [], "text under 4.5:1"


CONTRAST = """() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.9) return c;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('h1, h1 em, p, li, b, button, legend, label span, .button')]
    .filter((e) => e.offsetParent && e.textContent.trim() && !e.disabled)
    .filter((e) => !e.closest('.visually-hidden, .swatches label'))
    .map((e) => { const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
      return [e.textContent.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]; })
    .filter(([, ratio]) => ratio < 4.5);
}"""
