"""Fixtures of the browser tests: the built package, bundles for it, and Chromium. Import what you use by name."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from engine.format import write_model
from engine.graph import Fuse, Network, Side, SideMap, Stem, Tensor
from engine.pack import pack_network
from tests.support.paths import BUILT, ROOT
from tests.support.web_host import ISOLATION, WebHost
from u2net.preprocess import MEAN, STD

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WEB = ROOT / "web"
BUNDLES = BUILT / "bundles"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:"
)
STRICT = {**ISOLATION, "Content-Security-Policy": POLICY}
#: Loads the package in the page, with ONNX Runtime; tests put their own code after it.
IMPORT = "const api = await import(new URL('pages/remover.js', document.baseURI)); "


def chromium_path() -> str | None:
    """The browser: $CHROME_PATH, or one on the PATH, or None for the one that Playwright keeps."""
    return os.environ.get("CHROME_PATH") or shutil.which("chromium") or shutil.which("google-chrome")


FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def run_once(stamp: Path, inputs: list[Path], *command: str | Path, cwd: Path = ROOT) -> None:
    """Run `command` unless `stamp` is newer than every input; one test process runs it while the others wait."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    lock_path = BUNDLES.parent / "web.lock"
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max((path.stat().st_mtime for path in inputs), default=0.0)
        if stamp.exists() and stamp.stat().st_mtime >= newest:
            return
        result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        stamp.touch()


@pytest.fixture(scope="session")
def web_dist() -> Path:
    """`web/` with its package (dist/) and demo (demo-dist/) built from the sources as they are."""
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    run_once(WEB / "node_modules" / ".package-lock.json", [WEB / "package-lock.json"], "npm", "ci", cwd=WEB)
    engine = [*(ROOT / "engine" / "src").glob("*.[ch]"), ROOT / "engine" / "build.py"]
    wasm = ROOT / "build" / "engine" / "engine.wasm"
    threads = wasm.with_name("engine-threads.wasm")
    run_once(wasm, engine, sys.executable, "-m", "engine", "build", "--out", wasm)
    run_once(threads, engine, sys.executable, "-m", "engine", "build", "--threads", "--out", threads)
    sources = [
        p for folder in ("src", "demo", "scripts", "test/pages") for p in (WEB / folder).rglob("*") if p.is_file()
    ]
    run_once(WEB / "dist" / ".built", [*sources, WEB / "package.json", wasm, threads], "npm", "run", "build", cwd=WEB)
    return WEB


def make_bundle(name: str, *arguments: str | Path) -> Path:
    folder = BUNDLES / name
    script = WEB / "scripts" / "make_bundle.py"
    inputs = [script, *(part for part in arguments if isinstance(part, Path))]
    run_once(folder / "manifest.json", inputs, sys.executable, script, *arguments, "--out", folder)
    return folder


def probe_model(path: Path, size: int, interface: str) -> None:
    """A network that answers with a blurred "redder than blue", in the shape of a U²-Net and quick to run.

    For tests of everything around the network: its masks have edges and every value, and are known in advance.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: npt.ArrayLike, dtype: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, dtype), name)

    nodes, weights = [], [constant("redder", np.array([9.0, 0.0, -9.0]).reshape(1, 3, 1, 1))]
    if interface == "tensor":
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])
        pixels = "input"
    else:
        given = helper.make_tensor_value_info("input", TensorProto.UINT8, [1, size, size, 4])
        weights += [constant("from", [0], np.int64), constant("to", [3], np.int64), constant("axis", [3], np.int64)]
        weights += [constant("mean", np.reshape(MEAN, (1, 3, 1, 1))), constant("std", np.reshape(STD, (1, 3, 1, 1)))]
        nodes += [
            helper.make_node("Slice", ["input", "from", "to", "axis"], ["rgb"]),
            helper.make_node("Cast", ["rgb"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("ReduceMax", ["planes"], ["peak"], keepdims=1),
            helper.make_node("Div", ["planes", "peak"], ["unit"]),
            helper.make_node("Sub", ["unit", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normal"]),
        ]
        pixels = "normal"
    nodes += [
        helper.make_node("Conv", [pixels, "redder"], ["map0"]),
        helper.make_node("AveragePool", ["map0"], ["blur0"], kernel_shape=[9, 9], pads=[4, 4, 4, 4]),
    ]
    weights.append(constant("same", np.ones((1, 1, 1, 1))))
    for i in range(112):  # as many as a U²-Net has, for the runner refuses less
        nodes.append(helper.make_node("Conv", [f"blur{i}", "same"], [f"blur{i + 1}"]))
    nodes.append(helper.make_node("Sigmoid", ["blur112"], ["alpha"]))
    result = helper.make_tensor_value_info("alpha", TensorProto.FLOAT, [1, 1, size, size])
    graph = helper.make_graph(nodes, "probe", [given], [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for key, value in (("u2net.interface", interface), ("u2net.size", str(size)), ("u2net.model", "probe")):
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def packed_probe(path: Path, size: int) -> None:
    """The probe for the package's own engine: the same answer, but for 8-bit steps and the picture's border."""
    window, step, zero = 9, np.float32(1 / 16), np.float32(8)  # a value v is (v + 8) · 16 in 8 bits
    weight = np.zeros((4, 3, window, window), np.float32)
    weight[:, 0], weight[:, 2] = 9 / window**2, -9 / window**2
    redder = Tensor("redder", 4, size, size, step)
    stem = Stem(redder, weight, np.full(4, zero, np.float32), 1, window // 2)
    centre = np.zeros((4, 3, 3), np.float32)
    centre[0, 1, 1] = 1
    side = SideMap("side", size, size)
    fuse = Fuse((side,), np.ones(1, np.float32), 0.0, size, size)
    network = Network("probe", (size, size), (size, size), (stem, Side((redder,), side, centre, -float(zero)), fuse))
    path.write_bytes(write_model(pack_network(network).model))


def probe_bundle(
    name: str, *arguments: str | Path, size: int = 320, interface: str = "tensor", packed: bool = False
) -> Path:
    """A bundle with the probe: `packed` for the package's own engine, else as ONNX, with ONNX Runtime Web."""
    path = BUNDLES / "models" / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        probe_model(path.with_suffix(".new"), size, interface)
        path.with_suffix(".new").replace(path)
    if not packed:
        return make_bundle(name, "--fp32", path, "--runtime", *arguments)
    packed_path = path.with_suffix(".u2e")
    if not packed_path.exists():
        packed_probe(packed_path.with_suffix(".new"), size)
        packed_path.with_suffix(".new").replace(packed_path)
    return make_bundle(name, "--u2e", packed_path, "--reference", path, *arguments)


@pytest.fixture(scope="session")
def tiny_bundle(web_dist: Path) -> Path:
    """A probe instead of a network, as ONNX: the package's own engine has nothing in it that it could run."""
    return probe_bundle("probe")


@pytest.fixture(scope="session")
def packed_bundle(web_dist: Path) -> Path:
    """A probe instead of a network, for the package's own engine."""
    return probe_bundle("packed-probe", packed=True)


@pytest.fixture(scope="session")
def real_bundle(web_dist: Path, request: pytest.FixtureRequest) -> Path:
    """`lite` where it has weights, else `small`, in float32 and, where it was made before, int8."""
    lite = ROOT / "u2net" / "weights" / "lite.safetensors"
    model: Path = request.getfixturevalue("lite_fp32" if lite.is_file() else "small_fp32")
    return make_bundle("real", "--fp32", model, "--runtime")


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Browser]]:
    """Starts Chromium with further flags. A process may run one Playwright at a time, so it ends with its module."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=chromium_path(), args=[*FLAGS, *flags])


@pytest.fixture(scope="module")
def chromium(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """One browser for all tests of a module."""
    browser = launch("--disable-gpu")
    yield browser
    browser.close()


def host_of(bundle: Path, headers: dict[str, str] | None = None) -> WebHost:
    """A host with the package at /app/pages/, the demo at /app/demo/, `bundle` at /app/model/ and in the demo, and an
    empty page at /app/."""
    return WebHost(
        {
            "/app/pages/": WEB / "test-dist",
            "/app/demo/": WEB / "demo-dist",
            "/app/model/": bundle,
            "/app/demo/model/": bundle,
        },
        headers=STRICT if headers is None else headers,
        pages={"/app/": "<!doctype html><title>test</title>"},
    )


def call(page: Page, script: str, argument: Any = None) -> Any:
    """Run the body of an async function in the page, `api` being the package and `x` the argument.

    An error comes back as {"error": its name, "message": its text}.
    """
    body = IMPORT + script
    return page.evaluate(
        "async (x) => { try { return await (async () => { "
        + body
        + " })() } catch (error) { return { error: error.name, message: error.message, code: error.code } } }",
        argument,
    )
