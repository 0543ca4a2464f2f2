"""The benchmark of a method's step: it has to run the passes that the method makes, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.method_step import FIGURES, batch, full_model, make_step, method_arguments, parsed
from benchmarks.recorded_passes import Beside, Decode, Encode, describe, passes_alone, ready_images, record
from benchmarks.steps import in_turn
from keras_semimed.models import METHODS
from tests.models.common import tiny_encoder


def _arguments(method: str, *given: str):
    arguments = parsed(["--method", method, "--image-size", "32", "--batch-size", "2", "--repeats", "2"])
    arguments.encoder = tiny_encoder()
    arguments.set = ["decoder_filters=(8, 8, 8, 4, 4)", *given]
    return arguments


def _recorded(method: str, *given: str):
    arguments = method_arguments(_arguments(method, *given))
    model = full_model(METHODS[method], **arguments)
    return arguments, record(model, *batch(32, 2))


def test_each_figure_runs_in_turn():
    """All three do steps, and each is timed as often as asked for."""
    said: list[str] = []
    arguments = _arguments("fixmatch", "tasks=segmentation")
    seconds = in_turn({figure: make_step(figure, arguments, said.append) for figure in FIGURES}, arguments.repeats)
    assert [len(values) for values in seconds.values()] == [2, 2, 2]
    assert said == [
        "plain: student 1 encodes 2; decodes 2, learns by mask_logits",
        "passes: student 1 encodes 6; decodes 6, learns by mask_logits",
    ]


def test_passes_of_a_teacher_and_of_students():
    """The teacher's pass comes without gradient and in its own mode; what only labels has no gradient either."""
    _, passes = _recorded("augseg")
    encodes = [call for call in passes if isinstance(call, Encode)]
    decodes = [call for call in passes if isinstance(call, Decode)]
    assert [call.network for call in encodes] == [("teacher_networks", 0), ("networks", 0)]
    assert [call.training for call in encodes] == [False, True]
    assert [(call.count, call.learnt) for call in decodes] == [(2, set()), (4, {"mask_logits"})]
    _, passes = _recorded("cps", "cutmix_probability=1.0")
    decodes = [call for call in passes if isinstance(call, Decode)]
    assert [call.network[1] for call in decodes] == [0, 1, 0, 1]
    assert [(call.count, call.learnt) for call in decodes] == [(2, set())] * 2 + [(4, {"mask_logits"})] * 2


def test_passes_of_a_network_beside():
    """The rectifier's passes that learn, and the one that samples, which does not; they are run again."""
    arguments, passes = _recorded("diffrect")
    beside = [(call.name, call.learnt) for call in passes if isinstance(call, Beside)]
    learnt = {"mask_logits", "latent_loss"}
    assert beside == [("rectifier", learnt), ("rectifier", learnt), ("rectifier", set())]
    assert describe(passes).endswith("rectifier, learns; rectifier, learns; rectifier, without gradient")
    model = passes_alone(METHODS["diffrect"], passes, **arguments)
    before = model.rectifier.get_weights()
    assert np.isfinite(model.train_on_batch(ready_images(passes), return_dict=True)["loss"])
    assert any(not np.array_equal(x, y) for x, y in zip(model.rectifier.get_weights(), before, strict=True))


@pytest.mark.parametrize("method", ["unimatch", "mean_teacher"])
def test_replayed_step_trains_the_method_s_networks(method):
    """Features are repeated to as many as the decoder took; weights move, and the teacher behind them."""
    arguments, passes = _recorded(method)
    model = passes_alone(METHODS[method], passes, **arguments)
    networks = [*model.networks, *model.teacher_networks]
    before = [network.get_weights() for network in networks]
    assert np.isfinite(model.train_on_batch(ready_images(passes), return_dict=True)["loss"])
    for network, old in zip(networks, before, strict=True):
        assert any(not np.array_equal(x, y) for x, y in zip(network.get_weights(), old, strict=True))
    assert int(model.step) == 1
