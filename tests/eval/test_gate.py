"""The gate: every bound, everything that can be missing, and ruined models that must not pass."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.baseline import load_baseline
from eval.cli import main
from eval.figures import figure
from eval.gate import judge_report
from eval.measures import FLAWS, MASK
from eval.policy import Policy, load_policy
from eval.report import MaskMeans, load_report
from tests.support.paths import ROOT
from tests.support.reports import as_report, latency_entry, report_value
from u2net.errors import ArtifactError, ConfigError


@pytest.fixture
def report() -> dict[str, Any]:
    return report_value()


def breaches_of(report: dict[str, Any], policy: Policy, **options: Any) -> list[str]:
    return [str(breach) for breach in judge_report(as_report(report), policy, **options).breaches]


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
    assert breaches_of(report, policy_of(tmp_path, check(what, passes))) == []
    (breach,) = breaches_of(report, policy_of(tmp_path, check(what, fails)))
    assert breach.startswith(f"small/int8: {what} is ")
    assert reason in breach
    assert breach.endswith("(so it is)")


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
    assert main(["baseline", str(tmp_path / "report.json"), "--out", str(tmp_path / "base.json")]) == 0
    policy = policy_of(tmp_path, check(what, bound), 'baseline = "base.json"')
    assert breaches_of(report, policy, needs_baseline=True) == []
    change(report)
    (breach,) = breaches_of(report, policy)
    assert reason in breach


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def missing_model(r):
    r["models"].pop()


def older(r):
    """A report from before the flaws were measured."""
    for judged in r["quality"]["models"].values():
        for name in FLAWS:
            del judged["overall"][name]


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


@pytest.mark.parametrize(
    ("change", "what", "reason"),
    [
        (missing_model, "quality.iou", "no model of this name is in the report, so quality.iou was not checked"),
        (skipped_quality, "quality.iou", "quality was not judged (--no-quality)"),
        (skipped_latency, "latency.wasm.ratio", "wasm was not measured (--no-latency)"),
        (failed_backend, "latency.wasm.ratio", "wasm was failed (no Chromium found)"),
        (partial_backend, "latency.wasm.ratio", "wasm ended early (the browser died)"),
        (failed_model, "latency.wasm.ratio", "wasm was measured (no kernel)"),
        (lambda r: older(r), "quality.holes", "quality.holes is missing from the report"),
        (lambda r: None, "quality.skipped", "is not a figure that a report has"),
        (lambda r: None, "quality.davis.iou", "the set davis was not judged"),
        (lambda r: None, "quality.sad", "no picture has a true matte"),
        (lambda r: None, "latency.webgpu.ratio", "webgpu was not measured"),
        (lambda r: None, "latency.wasm.median_ms", "is not a figure that a report has"),
        (lambda r: None, "beauty", "is not a figure that a report has"),
    ],
)
def test_what_is_missing_fails(report, tmp_path, change, what, reason):
    change(report)
    breaches = breaches_of(report, policy_of(tmp_path, check(what, "floor = 0"), "pictures = 0"))
    assert len(breaches) == 1
    assert reason in breaches[0]


def test_first_run_on_own_data_says_so(report, tmp_path, monkeypatch):
    """No baseline yet is one line with its cure, not a breach for each check; asked for, it is one breach."""
    monkeypatch.chdir(tmp_path)
    text = check("quality.iou", "below_baseline = 0.01") + check("quality.iou", "floor = 0.8\nbelow_baseline = 0.01")
    policy = policy_of(tmp_path, text, 'baseline = "base.json"')
    other = copy.deepcopy(report)
    other["quality"]["source"] = "other photographs"
    for _ in range(2):  # without the file, and with one that knows other data
        verdict = judge_report(as_report(report), policy)
        assert verdict.passed and verdict.changes == ()
        assert verdict.note.startswith("no baseline yet for photographs × 100: small/fp32: run `u2net eval baseline ")
        assert f"--out {tmp_path / 'base.json'}` and commit it" in verdict.note
        (breach,) = breaches_of(report, policy, needs_baseline=True)
        assert breach.startswith("baseline: no baseline yet")
        write(tmp_path / "report.json", other)
        assert main(["baseline", str(tmp_path / "report.json"), "--out", str(tmp_path / "base.json")]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(
        tmp_path / "elsewhere"
    )  # where the policy is the installed one, one's own baseline is not beside it
    assert "--out baseline.json`, commit it, and give the gate --base" in judge_report(as_report(report), policy).note
    report["quality"]["models"]["small/int8"]["overall"]["iou"] = 0.7
    (breach,) = breaches_of(report, policy)  # what needs no baseline is still held
    assert "below the floor 0.8" in breach


def test_a_model_that_the_baseline_lacks_is_a_breach(report, tmp_path):
    text = check("quality.iou", "below_baseline = 0.01")
    (breach,) = breaches_of(report, policy_of(tmp_path, text))
    assert "the policy names no baseline" in breach
    base = tmp_path / "base.json"
    write(tmp_path / "report.json", report)
    assert main(["baseline", str(tmp_path / "report.json"), "--out", str(base)]) == 0
    value = json.loads(base.read_bytes())
    (old,) = value["reports"].values()
    old["models"].pop()
    del old["quality"]["models"]["small/int8"]
    write(base, value)
    (breach,) = breaches_of(report, policy_of(tmp_path, text, 'baseline = "base.json"'))
    assert "the baseline has no small/int8 on this data" in breach


def test_a_baseline_keeps_what_it_knows(report, tmp_path):
    base, path = tmp_path / "base.json", write(tmp_path / "report.json", report)
    other = {**report, "quality": {**report["quality"], "source": "others"}}
    for value in (report, other, report):
        write(path, value)
        assert main(["baseline", str(path), "--out", str(base)]) == 0
    baseline = load_baseline(base)
    assert sorted(baseline.reports) == ["others × 100: small/fp32", "photographs × 100: small/fp32"]
    kept = baseline.reports["others × 100: small/fp32"]
    assert all(judged.pictures == () for judged in kept.quality.models.values())
    assert base.stat().st_size < 2 * path.stat().st_size
    assert main(["baseline", str(path), "--out", str(tmp_path / "again.json")]) == 0
    assert load_baseline(tmp_path / "again.json").of(as_report(report)) == baseline.of(as_report(report))


def test_the_gate_says_how_sure_a_difference_is(report, tmp_path):
    base, path = tmp_path / "base.json", write(tmp_path / "report.json", report)
    assert main(["baseline", str(path), "--out", str(base)]) == 0
    policy = policy_of(tmp_path, check("quality.iou", "below_baseline = 0.01"), 'baseline = "base.json"')
    judged = report["quality"]["models"]["small/int8"]
    judged["overall"]["iou"] -= 0.03
    for i, row in enumerate(judged["pictures"]):
        row["iou"] -= 0.03 + (i - 4.5) / 1000
    verdict = judge_report(as_report(report), policy)
    (breach,) = verdict.breaches
    assert "worse than the baseline's 0.845 by more than 0.01 (difference -0.0300, 95 % -0.0318 to -0.0282)" in str(
        breach
    )
    (worse,) = [change for change in verdict.changes if change.is_worse]
    assert (worse.model, worse.title) == ("small/int8", "IoU") and not worse.is_better
    assert worse.interval is not None and worse.interval.low <= -0.03 <= worse.interval.high
    same = [change for change in verdict.changes if change is not worse]
    assert len(same) >= 8 and not any(change.is_worse or change.is_better for change in same)


def test_requirements(report, tmp_path):
    require = 'pictures = 297\nbackends = ["wasm", "webgpu"]'
    breaches = breaches_of(report, policy_of(tmp_path, check("integer_share", "floor = 0"), require))
    assert breaches == [
        "quality: 100 pictures were judged, 297 are required",
        "latency.webgpu: required, but not measured",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema_version = 2", "schema version 1"),
        ("schema_version = 1", "check is missing"),
        ("schema_version = 1\ncheck = []", "nothing is checked"),
        ("schema_version = 1\nnonsense = 1\n[[check]]\nwhat='a'\nfloor=1", "nonsense is not known"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'", "says nothing"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'\nflor=1", "flor is not known"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'\nfloor='high'", r"check\[0\].floor: expected float"),
        ("schema_version = 1\n[[check]]\nwhat='quality.iou'\nfloor=nan", "finite number"),
        (
            "schema_version = 1\n[require]\npictures = 'x'\n[[check]]\nwhat='a'\nfloor=1",
            "require.pictures: expected int",
        ),
        (
            "schema_version = 1\n[require]\npictures = -1\n[[check]]\nwhat='a'\nfloor=1",
            "require.pictures: expected int",
        ),
        (
            "schema_version = 1\n[require]\nbackends = 3\n[[check]]\nwhat='a'\nfloor=1",
            "require.backends: expected array",
        ),
        (
            "schema_version = 1\n[require]\nbackends = 'wasm'\n[[check]]\nwhat='a'\nfloor=1",
            "require.backends: expected",
        ),
        ("schema_version = 1\n[require]\nbaseline = 3\n[[check]]\nwhat='a'\nfloor=1", "require.baseline: expected str"),
        ("schema_version = 1\ncheck = 'all'", "check: expected array"),
        ("schema_version = 1\nrequire = 'all'\n[[check]]\nwhat='a'\nfloor=1", "require: expected object"),
        ("not toml at all", "not valid"),
    ],
)
def test_policies_that_make_no_sense(tmp_path, text, message):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_policy(path)
    assert str(caught.value).startswith(f"the policy {path} is not") and str(caught.value).isprintable()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")


def without(report: dict[str, Any], *keys: str) -> dict[str, Any]:
    """`report` without what the path `keys` leads to."""
    part = report = copy.deepcopy(report)
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    return report


def test_reports_that_make_no_sense(report, tmp_path):
    path = tmp_path / "report.json"
    for value, message in (
        ("{", "not valid"),
        ([], "expected object"),
        ({"schema_version": 9}, "schema version 1"),
        ({"schema_version": 1}, "is missing"),
        ({**report, "models": []}, "models is empty"),
        ({**report, "models": "small"}, "models: expected array"),
        (without(report, "quality"), "quality is missing"),
        (without(report, "quality", "models", "small/int8", "overall", "iou"), "iou is missing"),
        (without(report, "quality", "models", "small/int8"), "quality.models lacks small/int8"),
        ({**report, "latency": {"backends": {"wasm": {"title": "wasm"}}}}, "status is missing"),
        ({**report, "latency": {"backends": []}}, "latency.backends: expected object"),
        (json.dumps(report).replace("0.845", "NaN"), "JSON is malformed"),
    ):
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        with pytest.raises(ArtifactError, match=message) as caught:
            load_report(path)
        assert str(caught.value).startswith(f"the report {path} is not") and str(caught.value).isprintable()
    with pytest.raises(ArtifactError, match=r"cannot be read.*u2net eval"):
        load_report(tmp_path / "none.json")


def test_damaged_documents_are_one_line_at_the_command_line(report, tmp_path, capsys):
    """A report, a policy, a baseline: damaged, of another kind, or a pipe that nobody writes to."""
    good_report = write(tmp_path / "report.json", report)
    good_policy = tmp_path / "policy.toml"
    good_policy.write_text(f"schema_version = 1\n{check('quality.iou', 'below_baseline = 0.01')}")
    bare, typed, pipe = tmp_path / "bare.json", tmp_path / "typed.toml", tmp_path / "pipe"
    bare.write_text('{"schema_version":1}')
    typed.write_text(f"schema_version = 1\n[require]\npictures = 'x'\n{check('quality.iou', 'floor = 1')}")
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"schema_version":1,"reports":{"a":{}}}')
    os.mkfifo(pipe)
    for arguments, message in (
        (["gate", bare], f"the report {bare} is not valid: "),
        (["gate", pipe], f"the report {pipe} is not a regular file"),
        (["gate", good_report, "--policy", typed], f"the policy {typed} is not valid: require.pictures: expected int"),
        (["gate", good_report, "--policy", pipe], f"the policy {pipe} is not a regular file"),
        (
            ["gate", good_report, "--policy", good_policy, "--baseline", damaged],
            f"the baseline {damaged} is not valid: ",
        ),
        (["gate", good_report, "--policy", good_policy, "--baseline", pipe], f"the baseline {pipe} is not a regular"),
        (["baseline", bare], f"the report {bare} is not valid: "),
        (["baseline", good_report, "--out", damaged], f"the baseline {damaged} is not valid: "),
    ):
        assert main([str(argument) for argument in arguments]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {message}") and printed.err.count("\n") == 1


def test_the_document_has_every_measure():
    assert {*MASK, *FLAWS} == {field for field in MaskMeans.__struct_fields__ if field != "matte"}


def test_committed_policy_and_baseline_fit():
    policy = load_policy(ROOT / "eval" / "policy.toml")
    assert {"dead_convolutions", "constant_share", "integer_share"} <= {check.what for check in policy.checks}
    assert policy.baseline is not None
    baseline = load_baseline(policy.baseline)
    assert baseline.reports
    for old in baseline.reports.values():
        for name in old.names:
            for one in policy.checks:
                if "below_baseline" in one.bounds or ("growth" in one.bounds and name.endswith("int8")):
                    assert figure(old, name, one.what) >= 0


def test_figures_come_from_the_model_that_was_asked_for(report):
    document = as_report(report)
    assert figure(document, "small/fp32", "quality.iou") == 0.85
    assert figure(document, "small/int8", "quality.iou") == 0.845
    with pytest.raises(LookupError):
        figure(document, "small/int8", "quality.nothing")


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


def test_ruined_models_fail_each_for_its_own_reason(lite_fp32, tmp_path):
    sound = tmp_path / "sound" / "fp32.onnx"
    sound.parent.mkdir()
    shutil.copy(lite_fp32, sound)
    zeros = ruin(lite_fp32, tmp_path / "zeros" / "fp32.onnx", "zeros")
    constant = ruin(lite_fp32, tmp_path / "constant" / "fp32.onnx", "constant")
    pretender = tmp_path / "pretender" / "int8.onnx"
    pretender.parent.mkdir()
    shutil.copy(lite_fp32, pretender)
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
