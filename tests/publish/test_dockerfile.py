"""The Dockerfile without Docker: its steps are replayed in folders of the test, down to the service that it starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest

from publish.wheel import build_wheel
from tests.support.paths import ROOT
from tests.support.runner_models import red_detector

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def stages() -> list[list[tuple[str, str]]]:
    """(instruction, what follows) of each stage."""
    lines = re.sub(r"\\\n\s*", "", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")))
    steps = [tuple(line.split(maxsplit=1)) for line in lines.splitlines() if line.strip()]
    starts = [index for index, step in enumerate(steps) if step[0] == "FROM"]
    return [steps[start:end] for start, end in zip(starts, [*starts[1:], len(steps)], strict=True)]  # type: ignore[misc]


def of(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in stage if name == instruction]


def test_what_goes_in_and_who_runs_it() -> None:
    install, final = stages()
    assert [value.split()[0] for value in (*of(install, "FROM"), *of(final, "FROM"))] == ["python:3.11-slim"] * 2
    assert of(final, "RUN") == [] and of(final, "COPY") == ["--from=install /opt/u2net /opt/u2net"]
    assert [name for name, _ in final].index("USER") < [name for name, _ in final].index("ENTRYPOINT")
    (user,) = of(final, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number, which orchestrators can tell from root"
    assert not re.search(r"curl|wget|apt-get|ADD ", TEXT)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    *sources, _ = of(install, "COPY")[0].split()
    for source in sources:  # of all that lies about, only these are sent to the engine
        assert any(kept[1:] == source or fnmatch(source, kept[1:]) for kept in ignored[1:]), source
    extras = set(re.search(r"\[([\w,]+)\]", of(install, "RUN")[0]).group(1).split(","))  # type: ignore[union-attr]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras <= set(project["optional-dependencies"])


@pytest.mark.skipif(os.name != "posix", reason="the steps are of a POSIX shell")
def test_its_steps_give_a_service(tmp_path: Path) -> None:
    install, final = stages()
    wheel = build_wheel(tmp_path / "dist", red_detector(tmp_path / "red.onnx"))
    shutil.copyfile(ROOT / "constraints.txt", tmp_path / "constraints.txt")
    work, opt = tmp_path / "wheel", tmp_path / "opt"
    work.mkdir()
    *sources, _ = of(install, "COPY")[0].split()
    for source in sources:
        (found,) = tmp_path.glob(source)
        shutil.copyfile(found, work / found.name)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path / "home")}
    command = of(install, "RUN")[0].replace("/opt/", f"{opt}/")
    # What the wheel depends on is taken from here, not from the network; pip reads these as its options.
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        ["sh", "-ec", command], cwd=work, env=environment | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and wheel.stem.split("-")[0].replace("_", "-") in done.stdout, done.stderr
    (packages,) = (opt / "u2net").glob("lib/python*/site-packages")
    assert (packages / "u2net" / "models" / "small-fast.onnx").is_file()
    assert not (packages / "pip").exists() and not (opt / "u2net" / "bin" / "pip").exists()
    folders = {str(Path(str(find_spec(name).origin)).parents[1]) for name in ("numpy", "uvicorn")}  # type: ignore[union-attr]
    (packages / "dependencies.pth").write_text("\n".join(folders) + "\n")
    path = of(final, "ENV")[0].removeprefix("PATH=").replace("/opt/", f"{opt}/").replace("$PATH", os.environ["PATH"])
    program = [*json.loads(of(final, "ENTRYPOINT")[0]), *json.loads(of(final, "CMD")[0]), "--port", "0"]
    inside = {"PATH": path, "HOME": "/nonexistent"}
    with subprocess.Popen(["env", *program], cwd="/", env=inside, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            said = service.stderr.readline()
            (port,) = re.findall(r"listening on http://0\.0\.0\.0:(\d+);", said) or [said]
            health = json.loads(of(final, "HEALTHCHECK")[0].removeprefix("CMD "))
            assert f":{of(final, 'EXPOSE')[0]}/" in health[-1]
            for number, status in ((port, 0), ("1", 1)):
                asked = [part.replace(":8000/", f":{number}/") for part in health]
                answer = subprocess.run(["env", *asked], env=inside, stderr=subprocess.DEVNULL, check=False)
                assert answer.returncode == status
        finally:
            service.terminate()
        assert service.wait(10) == 0
