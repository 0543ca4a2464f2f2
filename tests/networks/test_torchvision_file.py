"""The lines of docs/training.md that make a weights file of torchvision's own."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from keras_semimed.networks import encoder
from tests.networks.test_encoders import LEVELS, features, images, torch_features

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
NAME = "resnet18-f37072fd.pth"
WIDTHS = (64, 128, 256, 512)


def lines() -> str:
    """The code of the page."""
    (found,) = (
        code
        for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
        if NAME in code
    )
    return found


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNet-18, in its order."""
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, norm: str, inputs: int, outputs: int, size: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs, size, size)
        found.update({f"{norm}.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")})
        found[f"{norm}.num_batches_tracked"] = ()

    convolution("conv1", "bn1", 3, 64, 7)
    before = 64
    for stage, width in enumerate(WIDTHS, start=1):
        for block in (0, 1):
            place = f"layer{stage}.{block}"
            convolution(f"{place}.conv1", f"{place}.bn1", before, width, 3)
            convolution(f"{place}.conv2", f"{place}.bn2", width, width, 3)
            if before != width:
                convolution(f"{place}.downsample.0", f"{place}.downsample.1", before, width, 1)
            before = width
    return {**found, "fc.weight": (1000, 512), "fc.bias": (1000,)}


def test_the_three_lines_make_a_file_whose_features_are_torchs(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    assert len(shapes()) == 122 and lines().strip().count("\n") == 4  # imports, an empty line, and three
    generator = np.random.default_rng(0)
    state = {}
    for name, shape in shapes().items():
        scale = 0.05 if len(shape) == 4 else 1.0
        values = generator.normal(0, scale, shape) if len(shape) == 4 else generator.uniform(0.5, 1.5, shape)
        state[name] = torch.tensor(values, dtype=torch.int64 if name.endswith("tracked") else torch.float32)
    monkeypatch.chdir(tmp_path)
    torch.save(state, NAME)
    with pytest.raises(AssertionError, match=f"{NAME} is damaged; get it anew"):
        exec(lines(), {})
    assert not Path("resnet18.npz").exists()
    digest = hashlib.sha256(Path(NAME).read_bytes()).hexdigest()[:8]
    Path(NAME).rename(f"resnet18-{digest}.pth")
    exec(lines().replace("f37072fd", digest), {})

    x = images()
    expected = torch_features({name: array.numpy() for name, array in state.items()}, x)
    found = features(encoder("resnet18", weights="resnet18.npz"), x)
    for level in LEVELS:
        largest = np.abs(expected[level]).max()
        np.testing.assert_allclose(found[level] / largest, expected[level] / largest, atol=1e-4, err_msg=level)
