"""The gate: every bound, everything that can be missing, and ruined models that must not pass."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.gate import Baseline, Policy, figure, judge_report, load_policy, load_report, run_baseline, trimmed
from tests.support.paths import ROOT
from u2net.errors import ArtifactError, ConfigError

NO_GRAPH = {"dead_convolutions": [], "integer_share": 0.0, "gmacs": 19.8}


def model_entry(name: str, **graph: Any) -> dict[str, Any]:
    size = {"raw_bytes": 4_500_000, "gzip_bytes": 4_200_000, "brotli_bytes": 4_000_000, "brotli_quality": 11}
    return {"name": name, "file": "x.onnx", "sha256": "0" * 64, "size": size, "graph": {**NO_GRAPH, **graph}}


def latency_entry(ratio: float) -> dict[str, Any]:
    return {
        "status": "measured",
        "median_ms": 1000 * ratio,
        "ratio": {"median": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "pairs": 12},
        "masks": [{"picture": "a", "mean_difference": 1e-6, "iou_with_native": 0.999}],
    }


def quality_entry(iou: float, agreement: float) -> dict[str, Any]:
    values = {"iou": iou, "mae": 0.04, "boundary_iou": 0.7, "count": 100, "constant": 0, "mattes": 0}
    return {
        "overall": values,
        "sets": {"ecssd": values},
        "agreement": {"iou": agreement, "iou_p5": 0.95, "iou_worst": 0.9, "mae": 1 - agreement},
    }


@pytest.fixture
def report() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "date": "2026-01-01",
        "models": [model_entry("small/fp32"), model_entry("small/int8", integer_share=0.99)],
        "quality": {
            "source": "photographs",
            "pictures": 100,
            "models": {"small/fp32": quality_entry(0.85, 1.0), "small/int8": quality_entry(0.845, 0.99)},
        },
        "latency": {
            "backends": {
                "wasm": {
                    "title": "wasm",
                    "status": "measured",
                    "models": {"small/fp32": latency_entry(1.0), "small/int8": latency_entry(0.6)},
                }
            }
        },
    }


def policy_of(tmp_path: Path, text: str, require: str = "") -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(f"schema_version = 1\n[require]\n{require}\n{text}")
    return load_policy(path)


def check(what: str, bound: str, models: str = "*/int8") -> str:
    return f'[[check]]\nmodels = "{models}"\nwhat = "{what}"\n{bound}\nbecause = "so it is"\n'


@pytest.mark.parametrize(
    ("what", "passes", "fails", "reason"),
    [
        ("quality.iou", "floor = 0.84", "floor = 0.85", "0.845, below the floor 0.85"),
        ("quality.mae", "ceiling = 0.05", "ceiling = 0.03", "0.04, above the ceiling 0.03"),
        ("quality.ecssd.iou", "floor = 0.84", "floor = 0.9", "below the floor"),
        ("quality.iou", "below_reference = 0.01", "below_reference = 0.001", "worse than small/fp32's 0.85"),
        ("agreement.iou", "floor = 0.98", "floor = 0.995", "below the floor"),
        ("agreement.iou_p5", "floor = 0.9", "floor = 0.96", "below the floor"),
        ("size.brotli_bytes", "ceiling = 4100000", "ceiling = 3900000", "4,000,000, above the ceiling 3,900,000"),
        ("integer_share", "floor = 0.9", "floor = 0.995", "below the floor"),
        ("constant_share", "ceiling = 0", "ceiling = -1", "above the ceiling"),
        ("dead_convolutions", "ceiling = 0", "ceiling = -1", "above the ceiling"),
        ("latency.wasm.ratio", "ceiling = 0.7", "ceiling = 0.5", "0.6, above the ceiling 0.5"),
        ("latency.wasm.iou_with_native", "floor = 0.99", "floor = 0.9995", "below the floor"),
        ("latency.wasm.mask_difference", "ceiling = 1e-3", "ceiling = 1e-9", "above the ceiling"),
    ],
)
def test_bounds(report, tmp_path, what, passes, fails, reason):
    assert judge_report(report, policy_of(tmp_path, check(what, passes))) == []
    (breach,) = judge_report(report, policy_of(tmp_path, check(what, fails)))
    assert str(breach).startswith(f"small/int8: {what} is ")
    assert reason in str(breach)
    assert str(breach).endswith("(so it is)")


def worse_iou(r):
    r["quality"]["models"]["small/int8"]["overall"]["iou"] = 0.80


def worse_mae(r):
    r["quality"]["models"]["small/int8"]["overall"]["mae"] = 0.06


def larger(r):
    r["models"][1]["size"]["brotli_bytes"] = 5_000_000


def slower(r):
    r["latency"]["backends"]["wasm"]["models"]["small/int8"] = latency_entry(0.8)


@pytest.mark.parametrize(
    ("change", "what", "bound", "reason"),
    [
        (worse_iou, "quality.iou", "below_baseline = 0.01", "worse than the baseline's 0.845"),
        (worse_mae, "quality.mae", "below_baseline = 0.01", "worse than the baseline's 0.04"),
        (larger, "size.brotli_bytes", "growth = 0.05", "more than 5% above"),
        (slower, "latency.wasm.ratio", "growth = 0.1", "more than 10% above the baseline's 0.6"),
    ],
)
def test_against_a_baseline(report, tmp_path, change, what, bound, reason):
    write(tmp_path / "report.json", report)
    assert run_baseline(arguments(report=tmp_path / "report.json", out=tmp_path / "base.json")) == 0
    policy = policy_of(tmp_path, check(what, bound), 'baseline = "base.json"')
    assert judge_report(report, policy) == []
    change(report)
    (breach,) = judge_report(report, policy)
    assert reason in str(breach)


def arguments(**values: Any) -> Any:
    import argparse

    return argparse.Namespace(json=False, **values)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def missing_model(r):
    r["models"].pop()


def skipped_quality(r):
    r["quality"] = {"skipped": "--no-quality"}


def skipped_latency(r):
    r["latency"] = {"skipped": "--no-latency"}


def failed_backend(r):
    r["latency"]["backends"]["wasm"] |= {"status": "failed", "reason": "no Chromium found", "models": {}}


def partial_backend(r):
    r["latency"]["backends"]["wasm"] |= {"status": "partial", "reason": "the browser died"}


def failed_model(r):
    r["latency"]["backends"]["wasm"]["models"]["small/int8"] = {"status": "failed", "reason": "no kernel"}


def lost_figure(r):
    del r["quality"]["models"]["small/int8"]["overall"]["iou"]


def not_a_number(r):
    r["quality"]["models"]["small/int8"]["overall"]["iou"] = float("nan")


@pytest.mark.parametrize(
    ("change", "what", "reason"),
    [
        (missing_model, "quality.iou", "no model of this name is in the report, so quality.iou was not checked"),
        (skipped_quality, "quality.iou", "quality was not judged (--no-quality)"),
        (skipped_latency, "latency.wasm.ratio", "wasm was not measured (--no-latency)"),
        (failed_backend, "latency.wasm.ratio", "wasm was failed (no Chromium found)"),
        (partial_backend, "latency.wasm.ratio", "wasm ended early (the browser died)"),
        (failed_model, "latency.wasm.ratio", "wasm was measured (no kernel)"),
        (lost_figure, "quality.iou", "quality.iou is missing from the report"),
        (not_a_number, "quality.iou", "quality.iou is missing from the report"),
        (lambda r: None, "quality.davis.iou", "the set davis was not judged"),
        (lambda r: None, "quality.sad", "no picture has a true matte"),
        (lambda r: None, "latency.webgpu.ratio", "webgpu was not measured"),
        (lambda r: None, "latency.wasm.median_ms", "is not a figure that a report has"),
        (lambda r: None, "beauty", "is not a figure that a report has"),
    ],
)
def test_what_is_missing_fails(report, tmp_path, change, what, reason):
    change(report)
    breaches = [str(b) for b in judge_report(report, policy_of(tmp_path, check(what, "floor = 0"), "pictures = 0"))]
    assert len(breaches) == 1
    assert reason in breaches[0]


def test_missing_baseline_fails(report, tmp_path):
    text = check("quality.iou", "below_baseline = 0.01")
    (breach,) = judge_report(report, policy_of(tmp_path, text))
    assert "the policy names no baseline" in str(breach)
    with pytest.raises(ArtifactError, match=r"the baseline .* cannot be read"):
        judge_report(report, policy_of(tmp_path, text, 'baseline = "none.json"'))
    other = copy.deepcopy(report)
    other["quality"]["source"] = "other photographs"
    key = Baseline.key(other)
    write(tmp_path / "base.json", {"schema_version": 1, "reports": {key: trimmed(other)}})
    (breach,) = judge_report(report, policy_of(tmp_path, text, 'baseline = "base.json"'))
    assert "the baseline has no small/int8 on this data" in str(breach)


def test_requirements(report, tmp_path):
    require = 'pictures = 297\nbackends = ["wasm", "webgpu"]'
    breaches = [str(b) for b in judge_report(report, policy_of(tmp_path, check("integer_share", "floor = 0"), require))]
    assert breaches == [
        "quality: 100 pictures were judged, 297 are required",
        "latency.webgpu: required, but not measured",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema_version = 2", "schema version 1"),
        ("schema_version = 1", "checks nothing"),
        ("schema_version = 1\nnonsense = 1\n[[check]]\nwhat='a'\nfloor=1", "unknown part: nonsense"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'", "says nothing"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'\nflor=1", "the bound 'flor' is unknown"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'\nfloor='high'", "says nothing"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'\nfloor=nan", "says nothing"),
        ("not toml at all", "not TOML"),
    ],
)
def test_policies_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_policy(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")


def test_reports_that_make_no_sense(tmp_path):
    path = tmp_path / "report.json"
    for text, message in (("{", "damaged"), ("[]", "schema version"), ('{"schema_version": 9}', "schema version")):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            load_report(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_report(tmp_path / "none.json")


def test_committed_policy_and_baseline_fit():
    policy = load_policy(ROOT / "eval" / "policy.toml")
    assert {"dead_convolutions", "constant_share", "integer_share"} <= {check.what for check in policy.checks}
    assert policy.baseline is not None
    baseline = Baseline.load(policy.baseline)
    for old in baseline.reports.values():
        for name in (entry["name"] for entry in old["models"]):
            for one in policy.checks:
                if "below_baseline" in one.bounds or ("growth" in one.bounds and name.endswith("int8")):
                    assert figure(old, name, one.what) >= 0


def test_figures_come_from_the_model_that_was_asked_for(report):
    assert figure(report, "small/fp32", "quality.iou") == 0.85
    assert figure(report, "small/int8", "quality.iou") == 0.845
    with pytest.raises(LookupError):
        figure(report, "small/int8", "quality.nothing")


# ---- ruined models, judged and gated by the commands themselves ----


def ruin(source: Path, target: Path, how: str) -> Path:
    """`source` with every weight of stage 5's decoder zero, or with a last bias that fills every mask."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def replace(name: str, value: np.ndarray) -> None:
        tensors[name].CopyFrom(numpy_helper.from_array(value, name))

    if how == "zeros":
        stage = [n for n in convolutions if "stage5d" in n.input[1] or "stage5d" in n.name]
        assert len(stage) >= 8, [n.name for n in convolutions][:5]
        for node in stage:
            replace(node.input[1], np.zeros_like(numpy_helper.to_array(tensors[node.input[1]])))
    else:
        last = convolutions[-1]
        replace(last.input[2], np.full_like(numpy_helper.to_array(tensors[last.input[2]]), 1e4))
    onnx.save(model, target)
    return target


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eval", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_ruined_models_fail_each_for_its_own_reason(small_fp32, tmp_path):
    sound = tmp_path / "sound" / "fp32.onnx"
    sound.parent.mkdir()
    shutil.copy(small_fp32, sound)
    zeros = ruin(small_fp32, tmp_path / "zeros" / "fp32.onnx", "zeros")
    constant = ruin(small_fp32, tmp_path / "constant" / "fp32.onnx", "constant")
    pretender = tmp_path / "pretender" / "int8.onnx"
    pretender.parent.mkdir()
    shutil.copy(small_fp32, pretender)
    done = command(
        sound, zeros, constant, pretender, "--no-latency", "--limit", "2", "--workers", "1", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    for name in ("report.json", "report.html", "report.md"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    gate = command("gate", tmp_path / "out" / "report.json", "--json", "--markdown", tmp_path / "out" / "report.md")
    assert gate.returncode == 1
    reasons: dict[str, str] = {}
    for breach in json.loads(gate.stdout)["breaches"]:
        reasons[breach["subject"]] = reasons.get(breach["subject"], "") + f"{breach['reason']} ({breach['because']}); "
    zero_reason = (
        "dead_convolutions is 8, above the ceiling 0 (a convolution whose weights are all zero computes nothing)"
    )
    constant_reason = "constant_share is 1, above the ceiling 0.2 (a mask of one value is no mask)"
    float_reason = "integer_share is 0, below the floor 0.8 (an int8 file must compute in integers)"
    owners = {zero_reason: "zeros/fp32", constant_reason: "constant/fp32", float_reason: "pretender/int8"}
    for reason, owner in owners.items():
        assert [subject for subject, text in reasons.items() if reason in text] == [owner], reasons
    # What was left out is a breach too: two pictures are too few, and nobody looked at the browser.
    assert "2 pictures were judged, 60 are required" in reasons["quality"]
    assert "not measured (--no-latency)" in reasons["latency.wasm"]
    text = (tmp_path / "out" / "report.md").read_text()
    assert "### Gate: failed" in text
    assert "zeros/fp32 has 8 convolutions whose weights are all zero" in text


def test_gate_command_passes_a_sound_report(report, tmp_path):
    path = write(tmp_path / "report.json", report)
    policy = tmp_path / "policy.toml"
    policy.write_text(f"schema_version = 1\n{check('quality.iou', 'floor = 0.8')}")
    markdown = tmp_path / "report.md"
    markdown.write_text("before\n")
    for _ in range(2):  # a second verdict replaces the first
        done = command("gate", path, "--policy", policy, "--markdown", markdown)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "gate: passed (1 checks)\n"
    assert markdown.read_text().count("### Gate: passed") == 1
    assert markdown.read_text().startswith("before\n")
    done = command("gate", tmp_path / "none.json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the report ")
    assert done.stderr.count("\n") == 1
