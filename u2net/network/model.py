"""U²-Net (Qin et al., "U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection", arXiv 2005.09007).

Notable choices:

- one definition for every size: a `U2NetConfig` says the widths, `U2Net` builds the network;
- parameter names are the authors' (`stage1.rebnconvin.conv_s1.weight`), so their checkpoints load unchanged;
- `stem` is ours: 2 folds each 2×2 block of pixels into channels (pixel-unshuffle), so that the whole network
  works at half resolution, where a multiplication buys the most mask for its milliseconds;
- `first_pool` is ours: without the pooling after stage 1, a network with a stem of 2 has every stage but the outermost
  two at the paper's resolutions, so a trained network's inner stages serve it unchanged;
- `resql` is ours: squeeze-and-excitation on the long skip connections. The paper has none; it is off for the authors'
  checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2net.errors import ConfigError

__all__ = ["CONFIGS", "RSU", "StageWidths", "U2Net", "U2NetConfig", "build_model", "count_parameters"]

#: (name, number of levels, dilated instead of pooled) of the eleven stages, in forward order (paper, section 3.2).
STAGES: tuple[tuple[str, int, bool], ...] = (
    ("stage1", 7, False),
    ("stage2", 6, False),
    ("stage3", 5, False),
    ("stage4", 4, False),
    ("stage5", 4, True),
    ("stage6", 4, True),
    ("stage5d", 4, True),
    ("stage4d", 4, False),
    ("stage3d", 5, False),
    ("stage2d", 6, False),
    ("stage1d", 7, False),
)
STAGE_NAMES = tuple(name for name, _, _ in STAGES)
#: The stages that side maps 1 to 6 are made of.
SIDE_STAGES = ("stage1d", "stage2d", "stage3d", "stage4d", "stage5d", "stage6")


@dataclass(frozen=True)
class StageWidths:
    """Channels inside (`mid`) and at the end (`out`) of one residual U-block."""

    mid: int
    out: int


@dataclass(frozen=True)
class U2NetConfig:
    """Everything that decides the shape of a U²-Net. `widths` follows `STAGE_NAMES`."""

    name: str
    widths: tuple[StageWidths, ...]
    stem: int = 1  # pixel-unshuffle factor; 1 is the paper's network, 2 computes at half resolution
    first_pool: bool = True  # max-pooling between stages 1 and 2, as in the paper
    resql: bool = False  # squeeze-and-excitation on the long skips; not in the paper
    size: int = 320  # side in pixels of the square input that the weights were trained for
    aliases: tuple[str, ...] = field(default=(), compare=False)  # other names people use for it

    def __post_init__(self) -> None:
        if len(self.widths) != len(STAGES):
            raise ConfigError(f"a U²-Net has {len(STAGES)} stages, got widths for {len(self.widths)}")
        if self.stem not in (1, 2, 4):
            raise ConfigError(f"stem must be 1, 2 or 4, got {self.stem}")
        if self.stem == 1 and not self.first_pool:
            raise ConfigError("only a network with a stem can do without the first pooling")
        if any(w.mid < 1 or w.out < 1 for w in self.widths):
            raise ConfigError("stage widths must be at least 1")

    def same_shape(self, other: U2NetConfig) -> bool:
        """Whether the other's state dict loads here and means the same."""
        return (self.widths, self.stem, self.first_pool, self.resql) == (
            other.widths,
            other.stem,
            other.first_pool,
            other.resql,
        )

    def stage(self, name: str) -> StageWidths:
        """Widths of the stage called `name`."""
        return self.widths[STAGE_NAMES.index(name)]

    def in_channels(self, name: str) -> int:
        """Channels that enter stage `name`: the picture's, the stage above's, or the two that a decoder stage joins."""
        if name == "stage1":
            return 3 * self.stem**2
        index = STAGE_NAMES.index(name)
        if not name.endswith("d"):
            return self.widths[index - 1].out
        return self.widths[index - 1].out + self.stage(name.removesuffix("d")).out


def _widths(*pairs: tuple[int, int]) -> tuple[StageWidths, ...]:
    return tuple(StageWidths(mid, out) for mid, out in pairs)


FULL = U2NetConfig(
    "full",
    _widths(
        (32, 64),
        (32, 128),
        (64, 256),
        (128, 512),
        (256, 512),
        (256, 512),
        (256, 512),
        (128, 256),
        (64, 128),
        (32, 64),
        (16, 64),
    ),
    aliases=("u2net",),
)
SMALL = U2NetConfig("small", _widths(*[(16, 64)] * 11), aliases=("u2netp",))
#: `small` with its outermost stages at half resolution and thinner: under a third of its multiplications at one size.
#: So 384 pixels, which show it smaller subjects, are cheap.
SMALL_FAST = U2NetConfig(
    "small-fast",
    _widths((16, 32), *[(16, 64)] * 8, (16, 48), (16, 24)),
    stem=2,
    first_pool=False,
    size=384,
)
#: A ninth of `small`'s multiplications: thin where the resolution is high, wide where a channel costs little.
LITE = U2NetConfig(
    "lite",
    _widths((8, 16), (12, 32), *[(16, 40)] * 7, (12, 24), (8, 12)),
    stem=2,
    first_pool=False,
)

CONFIGS: dict[str, U2NetConfig] = {c.name: c for c in (FULL, SMALL, SMALL_FAST, LITE)}


class REBNCONV(nn.Module):
    """3×3 convolution, batch norm, ReLU. The attribute names are the authors'."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(out_channels)
        self.relu_s1 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu_s1(self.bn_s1(self.conv_s1(x)))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution that does what this one and its batch norm do in evaluation mode, float32.

        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        CVPR 2018, section 3.2.
        """
        conv, norm = self.conv_s1, self.bn_s1
        assert norm.running_mean is not None and norm.running_var is not None and conv.bias is not None
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = conv.weight.double() * scale.reshape(-1, 1, 1, 1)
        bias = (conv.bias.double() - norm.running_mean.double()) * scale + norm.bias.double()
        return weight.float(), bias.float()


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resize of `x` (N, C, h, w) to the height and width of `like` (N, *, H, W), half-pixel centres."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class RSU(nn.Module):
    """Residual U-block (paper, section 3.1): a small U-Net of `levels` levels added to its own input convolution.

    With `dilated` the block keeps its resolution and dilates instead (RSU-4F).
    Input (N, in_channels, H, W), output (N, out_channels, H, W).
    """

    def __init__(self, levels: int, in_channels: int, mid: int, out: int, dilated: bool = False) -> None:
        super().__init__()
        self.levels = levels
        self.dilated = dilated

        def dilation(level: int) -> int:
            if dilated:
                return 1 << (level - 1)
            return 2 if level == levels else 1

        self.rebnconvin = REBNCONV(in_channels, out)
        for level in range(1, levels + 1):
            block = REBNCONV(out if level == 1 else mid, mid, dilation(level))
            self.add_module(f"rebnconv{level}", block)
        for level in range(levels - 1, 0, -1):
            block = REBNCONV(2 * mid, out if level == 1 else mid, dilation(level) if dilated else 1)
            self.add_module(f"rebnconv{level}d", block)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rebnconvin(x)
        down: list[Tensor] = []
        h = x
        for level in range(1, self.levels):
            if level > 1 and not self.dilated:
                h = F.max_pool2d(h, 2, stride=2, ceil_mode=True)
            h = self.get_submodule(f"rebnconv{level}")(h)
            down.append(h)
        h = self.get_submodule(f"rebnconv{self.levels}")(h)
        for level in range(self.levels - 1, 0, -1):
            skip = down[level - 1]
            h = self.get_submodule(f"rebnconv{level}d")(torch.cat((upsample_to(h, skip), skip), 1))
        return h + x


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al., arXiv 1709.01507) with a hard sigmoid, (N, C, H, W) to the same shape."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(4, channels // reduction)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        scale = F.hardsigmoid(self.expand(F.relu(self.reduce(scale))))
        return x * scale


class U2Net(nn.Module):
    """U²-Net. `forward` takes (N, 3, H, W) float32 as `u2net.preprocess` makes it.

    Returns seven maps (N, 1, H, W): the fused saliency map and the six side maps, probabilities in [0, 1], or the
    logits before the sigmoid with `logits=True`. Any height and width work; with `stem` > 1 they must be its multiples.
    """

    def __init__(self, config: U2NetConfig) -> None:
        super().__init__()
        self.config = config
        for name, levels, dilated in STAGES:
            widths = config.stage(name)
            self.add_module(name, RSU(levels, config.in_channels(name), widths.mid, widths.out, dilated))
        for index, name in enumerate(SIDE_STAGES, 1):
            self.add_module(f"side{index}", nn.Conv2d(config.stage(name).out, 1, 3, padding=1))
        if config.resql:
            for index in range(1, 6):
                self.add_module(f"resql{index}", SqueezeExcitation(config.stage(f"stage{index}").out))
        self.outconv = nn.Conv2d(6, 1, 1)

    def stage_outputs(self, x: Tensor, last: str = "stage1d") -> dict[str, Tensor]:
        """What the stages give, by name in forward order, up to stage `last`: each (N, its `out`, h, w)."""
        outputs: dict[str, Tensor] = {}
        for name in STAGE_NAMES:
            outputs[name] = self.get_submodule(name)(self.stage_input(name, x, outputs))
            if name == last:
                break
        return outputs

    def stage_input(self, name: str, x: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        """What stage `name` reads, of a picture `x`, (N, 3, H, W), and what the stages before it have given."""
        index = int(name[5])
        if name == "stage1":
            return F.pixel_unshuffle(x, self.config.stem) if self.config.stem > 1 else x
        if name.endswith("d"):
            skip = outputs[f"stage{index}"]
            above = outputs["stage6" if index == 5 else f"stage{index + 1}d"]
            if self.config.resql:
                skip = self.get_submodule(f"resql{index}")(skip)
            return torch.cat((upsample_to(above, skip), skip), 1)
        before = outputs[f"stage{index - 1}"]
        if index == 2 and not self.config.first_pool:
            return before
        return F.max_pool2d(before, 2, stride=2, ceil_mode=True)

    def _sides(self, outputs: dict[str, Tensor]) -> list[Tensor]:
        return [self.get_submodule(f"side{index}")(outputs[name]) for index, name in enumerate(SIDE_STAGES, 1)]

    def native_logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """The seven maps of `x` before the sigmoid, as `maps` has them."""
        return self.maps(self.stage_outputs(x))

    def maps(self, outputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The seven maps before the sigmoid at the resolutions where the network computes them, for training.

        `outputs` are what all stages give (`stage_outputs`). The fused map and side 1 are (N, 1, H / stem, W / stem),
        each further side half of the one before, rounded up; without `first_pool` side 2 is as large as side 1.
        """
        sides = self._sides(outputs)
        fused = self.outconv(torch.cat([sides[0], *(upsample_to(side, sides[0]) for side in sides[1:])], 1))
        return (fused, *sides)

    def forward(self, x: Tensor, logits: bool = False) -> tuple[Tensor, ...]:
        sides = self._sides(self.stage_outputs(x))
        sides = [sides[0], *(upsample_to(side, sides[0]) for side in sides[1:])]
        maps = [self.outconv(torch.cat(sides, 1)), *sides]
        if self.config.stem > 1:
            maps = [upsample_to(m, x) for m in maps]
        return tuple(maps) if logits else tuple(torch.sigmoid(m) for m in maps)


def build_model(config: U2NetConfig | str) -> U2Net:
    """A U²-Net with fresh random weights, in evaluation mode. `config` is a configuration or the name of one."""
    if isinstance(config, str):
        if config not in CONFIGS:
            raise ConfigError(f"no model is called {config!r}; there are {', '.join(CONFIGS)}")
        config = CONFIGS[config]
    return U2Net(config).eval()


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters of `model`, batch norm included."""
    return sum(p.numel() for p in model.parameters())
