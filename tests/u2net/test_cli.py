"""The command: what it writes, what it says, what it refuses, and with which exit status."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.paths import ROOT
from tests.support.runner_models import red_detector
from u2net.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(red_detector(tmp_path_factory.mktemp("model") / "red.onnx"))


def photo(path: Path, height: int = 60, width: int = 80, **options: Any) -> Path:
    rgb = np.full((height, width, 3), (30, 60, 90), np.uint8)
    rgb[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = (250, 20, 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)
    return path


def run(*arguments: object, stdin: bytes | None = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "u2net", *map(str, arguments)],
        cwd=options.pop("cwd", ROOT),
        input=stdin,
        capture_output=True,
        check=False,
        **options,
    )


def test_one_picture(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = photo(tmp_path / "a.png")
    targets = [tmp_path / "cut.png", tmp_path / "matte.png", tmp_path / "outline.svg"]
    arguments = [str(source), "-o", str(targets[0]), "--mask", str(targets[1]), "--svg", str(targets[2])]
    assert main([*arguments, "--model", model]) == 0
    cutout, mask = np.asarray(Image.open(targets[0])), np.asarray(Image.open(targets[1]))
    assert cutout.shape == (60, 80, 4)
    np.testing.assert_array_equal(cutout[..., 3], mask)
    assert mask[30, 40] > 250 and mask[3, 3] < 20
    assert (cutout[mask == 0] == 0).all()
    assert targets[2].read_text().startswith("<svg")
    assert "a.png" in capsys.readouterr().err


def test_output_beside_the_input(tmp_path: Path, model: str) -> None:
    assert main([str(photo(tmp_path / "a.jpg")), "--model", model, "-q"]) == 0
    assert Image.open(tmp_path / "a-cutout.png").mode == "RGBA"


@pytest.mark.parametrize(("suffix", "mode"), [(".png", "RGBA"), (".webp", "RGBA"), (".jpg", None)])
def test_formats_and_backgrounds(tmp_path: Path, model: str, suffix: str, mode: str | None) -> None:
    source, target = photo(tmp_path / "a.png"), tmp_path / f"out{suffix}"
    status = main([str(source), "-o", str(target), "--model", model])
    if mode is None:
        assert status == 1 and not target.exists()
    else:
        assert status == 0 and Image.open(target).mode == mode
    assert main([str(source), "-o", str(target), "--model", model, "--background", "#0f0"]) == 0
    image = Image.open(target)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[2, 2].astype(int) - (0, 255, 0)).max() < 25
    photo(tmp_path / "back.png", 31, 97)
    assert main([str(source), "-o", str(target), "--model", model, "--background", str(tmp_path / "back.png")]) == 0


def test_standard_input_and_output(tmp_path: Path, model: str) -> None:
    source = photo(tmp_path / "a.png")
    piped = run("-", "--model", model, stdin=source.read_bytes())
    assert piped.returncode == 0, piped.stderr
    main([str(source), "-o", str(tmp_path / "b.png"), "--model", model])
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(piped.stdout))), np.asarray(Image.open(tmp_path / "b.png"))
    )
    broken = run("-", "--model", model, stdin=b"nothing")
    assert broken.returncode == 1 and broken.stdout == b""
    assert broken.stderr.count(b"\n") == 1 and b"standard input" in broken.stderr


def test_a_batch_goes_on_after_a_bad_file(tmp_path: Path, model: str) -> None:
    for name in ("a.png", "b.jpg", "sub/c.png"):
        photo(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG nonsense")
    result = run(
        tmp_path / "in", tmp_path / "no.png", "-o", tmp_path / "out", "-r", "--json", "--model", model, "-j", 1
    )
    assert result.returncode == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[-1]["summary"] | {"seconds": 0} == {"done": 3, "skipped": 0, "failed": 2, "seconds": 0}
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == ["a.png", "b.png", "c.png"]
    assert b"Traceback" not in result.stderr and result.stderr.count(b"error: ") == 2
    failed = {Path(line["input"]).name for line in lines[:-1] if line["status"] == "failed"}
    assert failed == {"bad.png", "no.png"}


def test_structure_metadata_and_log(tmp_path: Path, model: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    photo(tmp_path / "in" / "x" / "a.jpg", exif=exif)
    photo(tmp_path / "in" / "y" / "a.jpg")
    common = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-r", "--model", model, "-q", "-j", "1"]
    assert main(common) == 1  # two pictures, one name
    assert not list(tmp_path.glob("out/*.png"))
    log = tmp_path / "log" / "run.jsonl"
    assert main([*common, "--keep-structure", "--keep-metadata", "--log", str(log)]) == 0
    kept = Image.open(tmp_path / "out" / "x" / "a.png")
    assert kept.size == (60, 80)  # turned
    assert kept.getexif()[0x010F] == "maker" and 0x0112 not in kept.getexif()
    assert [json.loads(line).get("status") for line in log.read_text().splitlines()] == ["done", "done", None]


def test_globs_and_masks_only(tmp_path: Path, model: str) -> None:
    for name in ("a1.png", "a2.png", "b.png"):
        photo(tmp_path / "in" / name)
    assert main([str(tmp_path / "in" / "a*.png"), "--mask", str(tmp_path / "masks"), "--model", model, "-q"]) == 0
    assert sorted(p.name for p in (tmp_path / "masks").glob("*.png")) == ["a1.png", "a2.png"]
    assert Image.open(tmp_path / "masks" / "a1.png").mode == "L"


@pytest.mark.parametrize(
    "arguments",
    [
        ["{in}", "-o", "{out}.txt"],
        ["{in}", "-o", "{in}"],
        ["{in}", "-o", "{out}.png", "--model", "{in}"],
        ["{in}", "-o", "{out}.png", "--model", "missing.onnx"],
        ["{in}", "-o", "{out}.png", "--background", "#12345"],
        ["{in}", "-o", "{out}.png", "--background", "{model}"],
        ["{in}", "-o", "{out}.png", "--max-pixels", "0.001"],
        ["{in}", "-o", "{out}.png", "--max-pixels", "nan"],
        ["{in}", "-o", "{out}.png", "--quality", "0"],
        ["{in}", "-o", "{out}.png", "--threshold", "2"],
        ["{in}", "-o", "{out}.png", "--radius", "-3"],
        ["{in}", "-o", "{out}.png", "--svg", "{in}"],
        ["{in}", "-o", "-", "--json"],
        ["{in}", "-", "-o", "{out}"],
        ["{in}", "{in}", "-o", "{in}"],
        ["{in}", "-o", "a\nb.png"],
        ["{in}", "-o", "a\0b.png"],
        ["{in}\0", "-o", "{out}.png"],
        ["{dir}/none*.png", "-o", "{out}"],
        ["{dir}/missing.png", "-o", "{out}.png"],
        ["{dir}", "-o", "{dir}"],
        ["{dir}"],
        ["{in}", "-o", "{out}.png", "--mask", "{in}/x.png"],
        ["{in}", "-o", "/proc/nowhere/x.png"],
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path, model: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = photo(tmp_path / "dir" / "a.png")
    names = {"in": source, "out": tmp_path / "out", "dir": tmp_path / "dir", "model": model}
    filled = [argument.format(**names) for argument in arguments]
    if "--model" not in filled:
        filled += ["--model", model]
    before = source.read_bytes()
    assert main(filled) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
    assert source.read_bytes() == before
    assert not list(tmp_path.glob("out*")) or not list((tmp_path / "out").glob("*.png"))


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--preset", "wrong", "x"], ["--jobs", "many", "x"]):
        assert main(arguments) == 2
        assert not arguments or capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("words", ["--json weights list", "weights --json list", "weights list --json"])
def test_json_is_taken_before_and_after_a_command(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {"small", "full", "human"}


@pytest.mark.parametrize("words", [["--version"], ["export", "--version"], ["weights", "--version"]])
def test_version_everywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("u2net-remover ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m u2net weights list --json | head -c 1"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1) and b"Traceback" not in done.stderr


def test_help_comes_quickly_and_loads_nothing_heavy() -> None:
    """No torch, onnx, scipy or rich, and not even numpy, to say what the program does."""
    heavy = ("torch", "onnx", "onnxruntime", "scipy", "rich", "numpy", "PIL")
    code = f"import sys, u2net.cli; u2net.cli.main(['--help']); sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_help_is_worth_reading(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "photo.jpg" in said and "Exit status" in said and max(map(len, said.splitlines())) <= 120


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, model: str) -> None:
    precious = tmp_path / "precious.png"
    precious.write_bytes(b"precious")
    (tmp_path / "out.png").symlink_to(precious)
    assert main([str(photo(tmp_path / "a.png")), "-o", str(tmp_path / "out.png"), "--model", model, "-q"]) == 0
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "out.png").is_symlink() and Image.open(tmp_path / "out.png").size == (80, 60)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "out.png", "precious.png"]


def test_full_disk_leaves_nothing(tmp_path: Path, model: str) -> None:
    source = photo(tmp_path / "a.png", 600, 800)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"the old one")

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    result = run(source, "-o", tmp_path / "out" / "a.png", "--model", model, preexec_fn=small_disk)
    assert result.returncode == 1 and result.stderr.count(b"\n") == 1, result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]
    assert (tmp_path / "out" / "a.png").read_bytes() == b"the old one"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    assert main([str(photo(tmp_path / "a.png")), "-o", str(tmp_path / "out" / "a.png"), "--model", model]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_no_model_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from u2net import remover

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remover, "_PACKAGED", tmp_path)
    assert main([str(photo(tmp_path / "a.png"))]) == 1
    assert "make export quantize" in capsys.readouterr().err


def test_names_cannot_forge_lines(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    photo(tmp_path / "in" / "b.png")
    photo(tmp_path / "in" / "a.png").rename(tmp_path / "in" / "x\x1b[2J\nerror: forged.png")
    assert main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model, "-j", "1"]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\nerror: forged" not in said
    assert [p.name for p in (tmp_path / "out").glob("*.png")] == ["b.png"]


def test_existing_transparency_multiplies(tmp_path: Path, model: str) -> None:
    source = photo(tmp_path / "a.png")
    image = Image.open(source).convert("RGBA")
    image.putalpha(200)
    image.save(source)
    assert main([str(source), "-o", str(tmp_path / "b.png"), "--model", model, "-q"]) == 0
    assert 190 <= np.asarray(Image.open(tmp_path / "b.png"))[..., 3].max() <= 200


def test_signals_are_the_callers_again_afterwards(tmp_path: Path, model: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main([str(photo(tmp_path / "a.jpg")), "--model", model, "-q"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_jpeg_without_a_background_is_refused_before_the_first_picture(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "in" / "a.png")
    for arguments in (["--format", "jpeg"], ["--format", "jpeg", "--background", "#ff000080"]):
        assert main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model, *arguments]) == 1
        assert "JPEG has no transparency" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_resolution_is_kept_with_the_metadata(tmp_path: Path, model: str) -> None:
    source = photo(tmp_path / "a.jpg", dpi=(300, 300))
    for name in ("out.png", "out.jpg"):
        arguments = [str(source), "-o", str(tmp_path / name), "--model", model, "--background", "white"]
        assert main([*arguments, "--keep-metadata"]) == 0
        assert Image.open(tmp_path / name).info["dpi"] == pytest.approx((300, 300), abs=0.5)
        assert main(arguments) == 0
        assert Image.open(tmp_path / name).info.get("dpi", (72, 72))[0] < 100


@pytest.mark.parametrize("colour", ["tomato", "#ff6347", "ff6347", "rgb(255, 99, 71)", "hsl(9, 100%, 64%)"])
def test_colours_as_css_writes_them(tmp_path: Path, model: str, colour: str) -> None:
    out = tmp_path / "out.png"
    assert main([str(photo(tmp_path / "a.png")), "-o", str(out), "--model", model, "--background", colour]) == 0
    image = Image.open(out)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[2, 2].astype(int) - (255, 99, 71)).max() < 12


def test_a_colour_may_be_partly_transparent(tmp_path: Path, model: str) -> None:
    source = photo(tmp_path / "a.png")
    for colour, name in (("transparent", "plain"), ("#0000ff80", "half")):
        arguments = [str(source), "-o", str(tmp_path / f"{name}.png"), "--model", model, "--background", colour]
        assert main(arguments) == 0
    plain, half = Image.open(tmp_path / "plain.png"), Image.open(tmp_path / "half.png")
    expected = Image.new("RGBA", plain.size, (0, 0, 255, 128))
    expected.alpha_composite(plain)
    assert np.abs(np.asarray(half).astype(int) - np.asarray(expected)).max() <= 3


def test_the_mask_may_go_to_standard_output(tmp_path: Path, model: str) -> None:
    source = photo(tmp_path / "a.png")
    done = run(source, "--mask", "-", "--model", model)
    assert done.returncode == 0
    mask = Image.open(io.BytesIO(done.stdout))
    assert mask.mode == "L" and np.asarray(mask)[30, 40] > 250
    assert not (tmp_path / "a-cutout.png").exists()
    for wrong in (["-o", "-"], ["--json"]):
        done = run(source, "--mask", "-", "--model", model, *wrong)
        assert done.returncode == 1 and b"cannot both go to standard output" in done.stderr


def test_models_by_name(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked for in the wheel, under build/ and where fetched models are kept, or it is said what to do."""
    source = photo(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "fetched"))
    bytes_ = Path(model).read_bytes()
    for place, names in (("build/small/int8.onnx", ("small", "u2netp")), ("fetched/u2net.onnx", ("full", "u2net"))):
        for name in names:
            done = run(source, "--model", name, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
            assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"u2net weights fetch" in done.stderr
        Path(place).parent.mkdir(parents=True)
        Path(place).write_bytes(bytes_)
        for name in names:
            assert main([str(source), "-o", "out.png", "--model", name]) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weights.safetensors", "u2net export --weights weights.safetensors"),
        ("weights.pth", "u2net export --weights weights.pth"),
        ("small-fast", "make export quantize MODEL=small-fast"),
        ("smal", "neither a file nor a model that is known"),
    ],
)
def test_models_that_are_none_say_what_to_do(
    tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(photo(tmp_path / "a.png")), "--model", name]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_pictures_that_are_not_read_are_said(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.svg").write_text("<svg/>")
    (tmp_path / "in" / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    (tmp_path / "in" / "d.jxl").write_bytes(b"\xff\x0a" + b"\0" * 64)
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main([str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", model, "-j", "1"]) == 1
    error = capsys.readouterr().err
    for said in ("b.svg: not a picture of a known format", "pip install pillow-heif", "pip install pillow-jxl-plugin"):
        assert said in error
    assert (tmp_path / "out" / "a.png").exists()


def test_best_where_nothing_can_be_written(tmp_path: Path) -> None:
    """As for a web server's user in a read-only container: no cache beside pymatting, none in a home folder."""
    pytest.importorskip("numba")
    for name in ("laplacian/cf_laplacian", "preconditioner/ichol", "solver/cg"):
        stand_in = tmp_path / "pymatting" / f"{name}.py"  # the real ones compile for seconds where nothing is cached
        stand_in.parent.mkdir(parents=True)
        stand_in.write_text(f"import numba\n\n\n@numba.njit(cache=True)\ndef {stand_in.stem}(x):\n    return x\n")
    # The package itself is never imported: all of its functions would be compiled.
    (tmp_path / "pymatting" / "__init__.py").write_text("raise SystemExit('imported')\n")
    script = "from u2net.matting import prepare_matting as go; go(print); import numba; print(numba.config.CACHE_DIR)"
    environment = os.environ | {
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",  # the two others find no place to write
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "u2net-numba-" in done.stdout and not Path(done.stdout.strip()).exists()
