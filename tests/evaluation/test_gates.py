from __future__ import annotations

import numpy as np
import pytest

from keras_semimed.evaluation.gates import gate_figures, gate_scores, gate_sentences

# Two images, four channels: one closed, one open for both of them, one open for the first only, one in between.
CHANNEL = np.array([[0.0, 1.0, 1.0, 0.4], [0.008, 0.992, 0.9, 0.62]])
SPATIAL = np.array([[[0.2, 0.4]], [[0.6, 0.6]]])[..., None]
FLAT = (np.full((2, 3), 0.95), np.full((2, 1, 1, 1), 0.95))


def test_figures_of_each_level():
    scores = gate_scores([CHANNEL, FLAT[0]], [SPATIAL, FLAT[1]])
    assert scores == pytest.approx(
        {
            "P1_channel_low": 0.0,
            "P1_channel_high": 1.0,
            "P1_channel_mean": (1 + 1 + 0.4 + 0.008 + 0.992 + 0.9 + 0.62) / 8,
            # Half the differences of the two images.
            "P1_channel_spread": (0.004 + 0.004 + 0.05 + 0.11) / 4,
            "P1_spatial_low": 0.2,
            "P1_spatial_high": 0.6,
            "P1_spatial_mean": 0.45,
            # The places of the first image differ by 0.2, those of the second one not at all.
            "P1_spatial_spread": 0.05,
            "P1_channel_closed": 0.25,
            "P1_channel_open": 0.25,
            "P2_channel_low": 0.95,
            "P2_channel_high": 0.95,
            "P2_channel_mean": 0.95,
            "P2_channel_spread": 0.0,
            "P2_spatial_low": 0.95,
            "P2_spatial_high": 0.95,
            "P2_spatial_mean": 0.95,
            "P2_spatial_spread": 0.0,
            "P2_channel_closed": 0.0,
            "P2_channel_open": 0.0,
        },
        abs=1e-12,
    )
    with pytest.raises(ValueError, match="shorter"):
        gate_scores([CHANNEL, CHANNEL], [SPATIAL])


def test_it_is_said_in_words():
    first, second = gate_sentences(gate_scores([CHANNEL, FLAT[0]], [SPATIAL, FLAT[1]]))
    assert first == (
        "P1: channels 0.000 to 1.000, spread between images 0.0420; places 0.200 to 0.600, spread between places "
        "0.0500. Of the channels 25% are closed and 25% are open for every image."
    )
    assert second == (
        "P2: channels 0.950 to 0.950, spread between images 0.0000; places 0.950 to 0.950, spread between places "
        "0.0000. It hardly differs between images or between places."
    )


def test_figures_are_of_the_last_epoch_and_of_all():
    rows = [{"epoch": epoch, **gate_scores([CHANNEL], [SPATIAL])} for epoch in (1, 2)]
    ranges, spreads = gate_figures({"images": 8, "history": rows})
    assert ranges.text.startswith("Mean, smallest and largest on 8 unlabelled images after epoch 2.")
    assert spreads.title == "Spread of the gates"
    assert all(figure.uri.startswith("data:image/svg+xml") for figure in (ranges, spreads))
