"""What a run continues from: `state.pt`, one typed document, read as hostile (no code, a regular file, bounded)."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from u2net.errors import ConfigError
from u2net.files import atomic_path, read_regular

__all__ = ["State", "read_state", "save_state", "steps_of"]

LIMIT_BYTES = 4 << 30  # `full` with its optimizer and average has 0.7 GB


@dataclass(frozen=True)
class State:
    """A run after `step` optimizer steps."""

    fingerprint: dict[str, Any]  # what must be equal for the run to be continued
    step: int
    seconds: float  # that the run has had
    done: list[float]  # how far it was at each step, 0 to 1
    first: dict[str, float]  # the validation of its start
    model: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


def read_state(path: Path, device: torch.device | str = "cpu") -> State:
    """The state in the file at `path`. Raises `ConfigError` where that is not the whole state of a run."""
    try:
        found = torch.load(io.BytesIO(read_regular(path, ConfigError, LIMIT_BYTES)), device, weights_only=True)
        state = State(**found)
        kinds = {"step": int, "seconds": float, "done": list}
        wrong = [f.name for f in fields(State) if not isinstance(getattr(state, f.name), kinds.get(f.name, dict))]
        if wrong or state.step != len(state.done):
            raise TypeError(f"its {wrong[0] if wrong else 'done'} is of another kind")
    except (EOFError, TypeError, RuntimeError, ValueError, pickle.UnpicklingError, ConfigError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} is not the state of a run: {said}; remove it to begin anew") from error
    return state


def save_state(state: State, path: Path) -> None:
    """Write `state` to `path`, atomically."""
    with atomic_path(path) as temporary:
        torch.save({f.name: getattr(state, f.name) for f in fields(State)}, temporary)


def steps_of(run: Path) -> list[float]:
    """How far the run in folder `run` was at each of its steps, 0 to 1: what `train(repeat=…)` repeats."""
    return read_state(run / "state.pt").done
