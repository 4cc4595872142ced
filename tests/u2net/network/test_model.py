"""The network: sizes, names and shapes of the paper, and the masks that its authors published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2net.errors import ConfigError
from u2net.network.checkpoint import load_checkpoint
from u2net.network.model import CONFIGS, STAGES, StageWidths, U2Net, U2NetConfig, build_model, count_parameters
from u2net.preprocess import min_max, resize_bilinear, to_tensor


def tiny(**settings) -> U2Net:
    torch.manual_seed(0)
    return U2Net(U2NetConfig("tiny", (StageWidths(2, 4),) * 11, **settings)).eval()


@pytest.mark.parametrize(("name", "parameters"), [("full", 44_009_869), ("small", 1_131_181)])
def test_parameter_counts_are_the_published_ones(name: str, parameters: int):
    # Counted by users of the authors' code: 44.0 M and 1.13 M, which the paper gives as 176.3 MB and 4.7 MB.
    with torch.device("meta"):
        assert count_parameters(U2Net(CONFIGS[name])) == parameters


def test_names_are_the_authors(small_weights: Path):
    from safetensors import safe_open

    with safe_open(small_weights, "pt") as file:
        published = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in U2Net(CONFIGS["small"]).state_dict().items()}
    assert ours == published


def test_full_has_the_widths_of_the_paper():
    with torch.device("meta"):
        state = U2Net(CONFIGS["full"]).state_dict()
    # (I, M, O) of figure 5's table, encoder and decoder
    expected = {
        "stage1": (3, 32, 64),
        "stage2": (64, 32, 128),
        "stage3": (128, 64, 256),
        "stage4": (256, 128, 512),
        "stage5": (512, 256, 512),
        "stage6": (512, 256, 512),
        "stage5d": (1024, 256, 512),
        "stage4d": (1024, 128, 256),
        "stage3d": (512, 64, 128),
        "stage2d": (256, 32, 64),
        "stage1d": (128, 16, 64),
    }
    found = {}
    for stage, _, _ in STAGES:
        out, channels = state[f"{stage}.rebnconvin.conv_s1.weight"].shape[:2]
        found[stage] = (channels, state[f"{stage}.rebnconv1.conv_s1.weight"].shape[0], out)
    assert found == expected


@pytest.mark.parametrize(("height", "width"), [(64, 64), (75, 101), (33, 48)])
def test_seven_probability_maps_of_the_input_size(height: int, width: int):
    maps = tiny()(torch.rand(2, 3, height, width))
    assert [tuple(m.shape) for m in maps] == [(2, 1, height, width)] * 7
    assert all(float(m.min()) >= 0 and float(m.max()) <= 1 for m in maps)


def test_logits_are_what_the_sigmoid_sees():
    model, x = tiny(), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for logit, probability in zip(model(x, logits=True), model(x), strict=True):
            torch.testing.assert_close(torch.sigmoid(logit), probability)


@pytest.mark.parametrize("settings", [{"stem": 2}, {"stem": 4}, {"resql": True}, {"stem": 2, "resql": True}])
def test_our_variants_keep_the_contract(settings: dict):
    maps = tiny(**settings)(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, 1, 64, 96)] * 7


def test_stem_of_two_works_at_half_resolution():
    """With a stem the network is the plain one on the pixel-unshuffled picture."""
    stemmed = tiny(stem=2)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    first = stemmed.get_submodule("stage1.rebnconvin")
    first.register_forward_hook(lambda module, args, result: seen.append((args[0], result)))
    x = torch.rand(1, 3, 64, 64)
    stemmed(x)
    given, result = seen[0]
    assert given.shape == (1, 12, 32, 32) and result.shape == (1, 4, 32, 32)
    torch.testing.assert_close(given[0, 1], x[0, 0, 0::2, 1::2])


def test_every_parameter_takes_part():
    model = tiny(stem=2, resql=True).train()
    sum(m.sum() for m in model(torch.rand(2, 3, 64, 64), logits=True)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_impossible_configurations_are_refused():
    with pytest.raises(ConfigError, match="11 stages"):
        U2NetConfig("x", (StageWidths(2, 4),) * 10)
    with pytest.raises(ConfigError, match="stem"):
        U2NetConfig("x", (StageWidths(2, 4),) * 11, stem=3)
    with pytest.raises(ConfigError, match="at least 1"):
        U2NetConfig("x", (StageWidths(0, 4),) * 11)
    with pytest.raises(ConfigError, match="'huge'"):
        build_model("huge")


def published_agreement(shared: Path, saliency) -> tuple[list[float], list[float]]:
    """IoU at 0.5 and MAE of `saliency(tensor)` against the masks that the authors published, picture by picture."""
    folder = shared / "data" / "reference" / "u2net-published"
    ious, maes = [], []
    for path in sorted((folder / "images").iterdir()):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        published = Image.open(folder / "u2netp_results" / f"{path.stem}.png").convert("L")
        expected = np.asarray(published, dtype=np.float32) / 255
        # As the authors do: plain bilinear resize, minimum to maximum stretched, bilinear resize back.
        found = resize_bilinear(min_max(saliency(to_tensor_plain(rgb))), *expected.shape)
        one, other = found > 0.5, expected > 0.5
        ious.append(float((one & other).sum() / max(1, (one | other).sum())))
        maes.append(float(np.abs(found - expected).mean()))
    return ious, maes


def to_tensor_plain(rgb: np.ndarray) -> np.ndarray:
    """The authors' preprocessing, which has no box reduction of large pictures."""
    from u2net.preprocess import normalise

    return normalise(resize_bilinear(rgb, 320, 320))


def test_small_reproduces_the_published_masks(shared: Path, small_weights: Path):
    model = load_checkpoint(small_weights)

    def saliency(tensor: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(tensor))[0][0, 0].numpy()

    ious, maes = published_agreement(shared, saliency)
    assert len(ious) == 18
    assert np.mean(ious) >= 0.985, ious
    assert np.mean(maes) <= 0.005, maes


def test_small_reproduces_the_published_masks_through_onnx(shared: Path, small_fp32: Path):
    from u2net.runtime import onnxruntime

    session = onnxruntime.InferenceSession(small_fp32.read_bytes(), providers=["CPUExecutionProvider"])
    ious, maes = published_agreement(shared, lambda tensor: session.run(None, {"input": tensor})[0][0, 0])
    assert len(ious) == 18
    assert np.mean(ious) >= 0.985, ious
    assert np.mean(maes) <= 0.005, maes


def test_plain_pictures_are_preprocessed_as_the_authors_do():
    rgb = np.random.default_rng(0).integers(0, 256, (400, 600, 3)).astype(np.uint8)
    np.testing.assert_array_equal(to_tensor(rgb, 320), to_tensor_plain(rgb))
