"""Models, checkpoints, sidecars, manifests and downloads that are not what they say."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import resource
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from u2net import fetch
from u2net.artifact import read_sidecar, verify_artifact
from u2net.cli import main
from u2net.errors import ArtifactError, CheckpointError, DownloadError, ModelError, U2NetError
from u2net.infer import Session
from u2net.network.checkpoint import load_checkpoint

from .forgeries import payload, plain_model, safetensors, torch_zip
from .outcome import attack, within_time

DEEP = b"[" * 200_000


def external(location: str) -> onnx.ModelProto:
    """The plain model with a weight that is said to lie in another file."""
    model = plain_model()
    weight = model.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return model


def hidden_external(location: str) -> onnx.ModelProto:
    """External data in a constant of a subgraph of a function that nothing calls."""
    tensor = external(location).graph.initializer[1]
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    model = plain_model()
    model.functions.append(
        helper.make_function("own", "never", ["x"], ["y"], [branch], [helper.make_opsetid("", 18)], [])
    )
    return model


def enormous(dims: tuple[int, ...]) -> onnx.ModelProto:
    """An initializer that claims `dims` and holds four bytes."""
    model = plain_model()
    tensor = TensorProto(name="same", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0\0\0\0")
    model.graph.initializer[1].CopyFrom(tensor)
    return model


def endless() -> onnx.ModelProto:
    """A loop of nine quintillion rounds before the output."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Sigmoid", ["m"], ["n"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, ()),
            helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("m", TensorProto.FLOAT, (1, 1, 32, 32)),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("n", TensorProto.FLOAT, (1, 1, 32, 32)),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(2**63 - 1, np.int64), "rounds"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    return plain_model(
        [helper.make_node("Loop", ["rounds", "go", "last"], ["alpha"], body=body)], initializers=constants
    )


def swelling() -> onnx.ModelProto:
    """A map that is blown up to 16 TB and summed down again."""
    return plain_model(
        [
            helper.make_node("Expand", ["last", "shape"], ["huge"]),
            helper.make_node("ReduceMax", ["huge", "axes"], ["alpha"], keepdims=1),
        ],
        initializers=[
            numpy_helper.from_array(np.array([4_000_000, 1000, 32, 32], np.int64), "shape"),
            numpy_helper.from_array(np.array([0, 1], np.int64), "axes"),
        ],
    )


def raw(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString()


HOSTILE_MODELS: dict[str, Callable[[], bytes]] = {
    "external data up and away": lambda: raw(external("../../../../etc/passwd")),
    "external data at the root": lambda: raw(external("/etc/passwd")),
    "external data beside it": lambda: raw(external("weights.bin")),
    "external data in a function's subgraph": lambda: raw(hidden_external("../secret")),
    "claims 4 TB": lambda: raw(enormous((1 << 40,))),
    "claims an overflow": lambda: raw(enormous((1 << 62, 8, 1, 1))),
    "claims a negative size": lambda: raw(enormous((-1, 1, 1, 1))),
    "loops for ever": lambda: raw(endless()),
    "few convolutions": lambda: raw(plain_model(convolutions=20)),
    "size as text": lambda: raw(plain_model(metadata={"u2net.size": "1e9"})),
    "size of 30 digits": lambda: raw(plain_model(metadata={"u2net.size": "9" * 30})),
    "size of 5000 digits": lambda: raw(plain_model(metadata={"u2net.size": "9" * 5000})),
    "size in other digits": lambda: raw(plain_model(metadata={"u2net.size": "٣٢"})),
    "other interface": lambda: raw(plain_model(metadata={"u2net.interface": "image"})),
    "an operator of nobody": lambda: raw(
        plain_model([helper.make_node("Steal", ["last"], ["alpha"], domain="com.example")])
    ),
    "empty": lambda: b"",
    "text": lambda: b"weights: yes please\n",
    "zeros": lambda: b"\0" * 4096,
    "endless varint": lambda: b"\xff" * 64,
    "field longer than the file": lambda: b"\x3a\xff\xff\xff\xff\x7f",
    "cut off": lambda: raw(plain_model())[:-200],
    "nested a thousand deep": lambda: _nested(1000),
    "a pickle": lambda: payload("touch owned"),
}


def _nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph in an attribute …"""

    def field(number: int, data: bytes) -> bytes:
        key, length, size = number << 3 | 2, len(data), b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        prefix = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
        return prefix + size + bytes([length]) + data

    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


@pytest.mark.parametrize("name", HOSTILE_MODELS)
def test_the_runner_refuses_hostile_models(name: str, tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(HOSTILE_MODELS[name]())
    (tmp_path / "weights.bin").write_bytes(b"\0\0\x80\x3f")
    outcome = attack(main, [photo, "-o", tmp_path / "out.png", "--model", path], tmp_path)
    outcome.refused("model.onnx")
    if name.startswith("external") and "function" not in name:
        assert "external data" in outcome.err


def test_a_model_that_swells_is_one_line(tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(raw(swelling()))
    attack(main, [photo, "-o", tmp_path / "out.png", "--model", path], tmp_path).refused("model.onnx")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(value: float, tmp_path: Path, photo: Path) -> None:
    # Multiplied so that the optimizer cannot see it coming.
    model = plain_model(
        [helper.make_node("Mul", ["last", "evil"], ["alpha"])],
        initializers=[numpy_helper.from_array(np.array(value, np.float32), "evil")],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(raw(model))
    attack(main, [photo, "-o", tmp_path / "out.png", "--model", path], tmp_path).refused("not finite")


def test_a_map_out_of_range_is_clipped(tmp_path: Path) -> None:
    model = plain_model(
        [helper.make_node("Mul", ["last", "evil"], ["alpha"])],
        initializers=[numpy_helper.from_array(np.array(1e30, np.float32), "evil")],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(raw(model))
    saliency = Session(path).saliency(np.full((40, 40, 3), 200, np.uint8))
    assert saliency.min() >= 0 and saliency.max() <= 1


def test_what_is_no_model_file(tmp_path: Path, photo: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    for given in (tmp_path / "pipe.onnx", tmp_path / "folder.onnx", tmp_path / "none.onnx", "/dev/zero"):
        with within_time(), pytest.raises(ModelError):
            Session(given)
        attack(main, [photo, "-o", tmp_path / "o.png", "--model", given], tmp_path).refused()


# Checkpoints


def zip_bomb() -> bytes:
    """An archive whose member claims to unpack to 2 GB."""
    data = bytearray(torch_zip(b"\x80\x02}.", {"archive/data/0": b"\0" * 4096}))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 2_000_000_000)
    return bytes(data)


def tensor(shape: list[int], start: int, end: int, kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


FIRST = "stage1.rebnconvin.conv_s1.weight"
HOSTILE_CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"not a checkpoint at all\n" * 9,
    "zeros": lambda: b"\0" * 999,
    "safetensors with a header of 8 EiB": lambda: safetensors(b"{}", length=2**63 - 1),
    "safetensors with a header beyond its end": lambda: safetensors(b"{}", length=3),
    "safetensors nested deeply": lambda: safetensors(b'{"a":' + DEEP),
    "safetensors that is no JSON": lambda: safetensors(b"{nonsense}"),
    "safetensors with offsets beyond its end": lambda: safetensors({FIRST: tensor([4], 0, 16)}),
    "safetensors with offsets that overlap": lambda: safetensors(
        {"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, b"\0" * 12
    ),
    "safetensors with sizes that overflow": lambda: safetensors({FIRST: tensor([2**33, 2**33], 0, 8)}, b"\0" * 8),
    "safetensors of another network": lambda: safetensors({"bert": tensor([2], 0, 8)}, b"\0" * 8),
    "safetensors without tensors": lambda: safetensors({}),
    "safetensors with a first layer of three dimensions": lambda: safetensors({FIRST: tensor([2], 0, 8)}, b"\0" * 8),
    "safetensors with a damaged configuration": lambda: safetensors(
        {"__metadata__": {"u2net.config": "[" * 100_000}, "a": tensor([2], 0, 8)}, b"\0" * 8
    ),
    "pth of zeros in a zip": lambda: torch_zip(b"\0" * 100),
    "pth with a list": lambda: torch_zip(pickle.dumps([1, 2], 2)),
    "pth with numbers": lambda: pickle.dumps({"a": 1}, 2),
    "pth of an endless pickle": lambda: b"\x80\x02" + b"(" * 300_000,
    "pth nested deeply": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "pth with a name that leaves the archive": lambda: torch_zip(b"\x80\x02}.", {"../../evil": b"x"}),
    "zip that ends": lambda: torch_zip(b"\x80\x02}.")[:-30],
    "zip bomb": zip_bomb,
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".onnx"])
@pytest.mark.parametrize("name", HOSTILE_CHECKPOINTS)
def test_hostile_checkpoints_are_refused(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(HOSTILE_CHECKPOINTS[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with within_time(), pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and "weights" in line and len(line) < 700
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


@pytest.mark.parametrize("name", sorted(HOSTILE_MODELS))
def test_hostile_models_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    path.write_bytes(HOSTILE_MODELS[name]())
    with within_time(), pytest.raises(U2NetError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("wrap", [lambda data: data, torch_zip])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx", ".pt"])
def test_code_in_a_pickle_never_runs(suffix: str, wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    trace = tmp_path / "owned"
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(wrap(payload(f"touch {trace}")))
    with pytest.raises(CheckpointError, match=r"code|posix\.system|no checkpoint"):
        load_checkpoint(path)
    with pytest.raises(ModelError):
        Session(path)
    assert not trace.exists()
    pickle.loads(payload(f"touch {trace}"))  # noqa: S301  (the payload is real: unrestricted unpickling runs it)
    assert trace.exists()


# Sidecars and manifests

SIDECARS = {
    "empty": b"",
    "nested deeply": DEEP,
    "a list": b"[]",
    "no schema": b"{}",
    "not text": b"\xff\xfe\x00{",
    "a number of a million digits": b'{"schema_version": ' + b"9" * 1_000_000 + b"}",
    "a checksum that is no text": b'{"schema_version": 1, "sha256": {"a": []}}',
    "another checksum": b'{"schema_version": 1, "sha256": "' + b"0" * 64 + b'"}',
}


@pytest.mark.parametrize("name", SIDECARS)
def test_hostile_sidecars(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"bytes")
    (tmp_path / "m.json").write_bytes(SIDECARS[name])
    with within_time(), pytest.raises(ArtifactError) as caught:
        verify_artifact(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_a_sidecar_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"bytes")
    os.mkfifo(tmp_path / "m.json")
    with within_time(wall_s=10), pytest.raises(ArtifactError):
        read_sidecar(tmp_path / "m.onnx")


UNSAFE_PATHS = (
    "../outside", "/etc/passwd", "a/../../b", "..", ".", "a//b", "a/", "", "a\\..\\b", "C:\\x", "C:x", "a\0b", "a\nb",
    "~/x", "a/./b", "%2e%2e/x", "\u2025/x", "file:///x", "con\u202etxt", " a", "a:b",
)  # fmt: skip


def manifest(path: object, **fields: object) -> bytes:
    entry = {"path": path, "role": "model", "bytes": 1, "sha256": "0" * 64, "sri": "x", **fields}
    return json.dumps({"schema_version": 1, "files": [entry]}).encode()


MANIFESTS: dict[str, bytes] = {
    **{f"path {path!r}": manifest(path) for path in UNSAFE_PATHS},
    "path that is no text": manifest({"a": 1}),
    "nested deeply": DEEP,
    "files that are no list": b'{"schema_version": 1, "files": {"a": 1}}',
    "entries that are no objects": b'{"schema_version": 1, "files": [1, "a"]}',
    "of another schema": b'{"schema_version": "1"}',
    "not JSON": b"\xff{",
    "path alone": b'{"schema_version": 1, "files": [{"path": "model.onnx"}]}',
    "listed twice": b'{"schema_version": 1, "files": [{"path": "a"}, {"path": "a"}]}',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests(name: str, tmp_path: Path) -> None:
    verify = pytest.importorskip("publish.verify")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (tmp_path / "outside").write_text("not yours")
    (bundle / "model.onnx").write_bytes(b"m")
    (bundle / "manifest.json").write_bytes(MANIFESTS[name])
    with within_time(), pytest.raises(ArtifactError) as caught:
        verify.verify_bundle(bundle)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


def test_links_and_extra_files_in_a_bundle(tmp_path: Path) -> None:
    verify = pytest.importorskip("publish.verify")
    data = b"1"
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "outside").write_bytes(data)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").symlink_to(tmp_path / "outside")
    (tmp_path / "b" / "manifest.json").write_bytes(manifest("file", role="licence", sha256=digest))
    with pytest.raises(ArtifactError, match=r"link|missing"):
        verify.verify_bundle(tmp_path / "b")
    (tmp_path / "b" / "folder").symlink_to(tmp_path)
    (tmp_path / "b" / "manifest.json").write_bytes(manifest("folder/outside", role="licence", sha256=digest))
    with pytest.raises(ArtifactError):
        verify.verify_bundle(tmp_path / "b")


# Downloads


@pytest.fixture
def mirror() -> Iterator[Callable[[bytes], str]]:
    """A local mirror that serves whatever bytes it is given."""
    content = {"data": b""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content["data"])))
            self.end_headers()
            self.wfile.write(content["data"])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(data: bytes) -> str:
        content["data"] = data
        return f"http://127.0.0.1:{server.server_port}/weights"

    yield serve
    server.shutdown()
    server.server_close()


GOOD = b"the published bytes" * 100


def get(url: str, target: Path) -> None:
    fetch.download((url,), target, size_bytes=len(GOOD), sha256=hashlib.sha256(GOOD).hexdigest(), attempts=2, pause_s=0)


def test_a_poisoned_cache_is_noticed_and_mended(tmp_path: Path, mirror: Callable[[bytes], str]) -> None:
    target = tmp_path / "w.onnx"
    for poison in (b"x" * len(GOOD), GOOD[:-1], GOOD + b"x", b""):
        target.write_bytes(poison)
        get(mirror(GOOD), target)
        assert target.read_bytes() == GOOD
    for poison in (b"x" * 500, b"x" * len(GOOD), b"x" * 10_000):
        target.unlink()
        (tmp_path / ".w.onnx.part").write_bytes(poison)
        get(mirror(GOOD), target)
        assert target.read_bytes() == GOOD and [p.name for p in tmp_path.iterdir()] == ["w.onnx"]


@pytest.mark.parametrize("data", [b"x" * len(GOOD), GOOD[:-1], GOOD + b"x", b"", b"<html>log in</html>"])
def test_a_mirror_that_lies_leaves_nothing(data: bytes, tmp_path: Path, mirror: Callable[[bytes], str]) -> None:
    with within_time(), pytest.raises(DownloadError):
        get(mirror(data), tmp_path / "w.onnx")
    assert not (tmp_path / "w.onnx").exists()


def test_a_link_in_the_cache_is_not_written_through(tmp_path: Path, mirror: Callable[[bytes], str]) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "w.onnx").symlink_to(victim)
    get(mirror(GOOD), tmp_path / "cache" / "w.onnx")
    assert victim.read_bytes() == b"precious"
    (tmp_path / "cache" / "w.onnx").unlink()
    (tmp_path / "cache" / ".w.onnx.part").symlink_to(victim)
    try:
        get(mirror(GOOD), tmp_path / "cache" / "w.onnx")
    except U2NetError:
        pass
    else:
        assert (tmp_path / "cache" / "w.onnx").read_bytes() == GOOD
    assert victim.read_bytes() == b"precious"


def test_addresses_that_are_not_http(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "ftp://example.com/x", "http://", "nonsense", "http://[::1", "data:,x"):
        with within_time(), pytest.raises(DownloadError):
            get(url, tmp_path / "w.onnx")
    assert not list(tmp_path.iterdir())


def test_struct_sizes_are_what_the_formats_say() -> None:
    """The forgeries are close to the real thing: unspoiled, each is taken."""
    from safetensors.torch import load

    assert load(safetensors({"a": tensor([1], 0, 4)}, struct.pack("<f", 2.5)))["a"].item() == 2.5
    onnx.checker.check_model(plain_model())
    onnx.checker.check_model(endless())
