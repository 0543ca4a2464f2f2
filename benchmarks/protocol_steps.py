"""What a training step of each arm of docs/protocol.md costs beside the first arm's.

    KERAS_BACKEND=tensorflow python -m benchmarks.protocol_steps S
    python -m benchmarks.protocol_steps S --output docs/measurements/S/steps.json

All arms in turn in one process, on made images. On a machine that is busy with other work --processor-time counts, on
one thread (OMP_NUM_THREADS=1 and TensorFlow's two alike), the seconds of the processor, which it disturbs less. With
--output they go to where `python -m recipes.protocol S --table` shows them beside the scores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import keras

from benchmarks.method_step import batch, stepper
from benchmarks.steps import in_turn, ratio
from keras_semimed.data.cards import card
from keras_semimed.experiments.command_line.command import read_settings
from keras_semimed.experiments.runs.experiment import build
from keras_semimed.files import write_json
from recipes.protocol_plan import TABLES


def main(argv: list[str] | None = None) -> None:
    """Times the arms of a table and prints them beside the first one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=tuple(TABLES))
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each arm after a warm-up (15)")
    parser.add_argument("--processor-time", action="store_true", help="seconds of the processor, not of the clock")
    parser.add_argument("--output", type=Path, help="file for the medians of the ratios")
    options = parser.parse_args(argv)
    of = TABLES[options.table]
    steps = {}
    for arm, flags in of.arms.items():
        settings = read_settings("train", [of.data, *of.common.split(), *flags.split(), "--weights", "none"])
        classes = 3 if settings.mask_classes == "type" else 2
        count = settings.labeled_batch_size or settings.batch_size
        x, y = batch(settings.image_size, count)
        more, hidden = batch(settings.image_size, settings.batch_size)
        model = build(settings, SimpleNamespace(num_classes=classes, class_names=card(of.data).study_classes))
        if settings.arguments["pseudo_labels"] == "truth":
            y |= {f"unlabeled_{name}": value for name, value in hidden.items()}
        learnt = [name for name in y if name.removeprefix("unlabeled_") in model.learnt_heads]
        inputs = {"labeled": x["labeled"], "unlabeled": more["unlabeled"]}
        steps[arm] = stepper(model, inputs, {name: y[name] for name in learnt})
    clock = time.process_time if options.processor_time else time.perf_counter
    seconds = in_turn(steps, options.repeats, clock)
    first = next(iter(steps))
    print(f"{options.table} on {keras.backend.backend()}, seconds a step and times {first}")
    for arm, values in seconds.items():
        print(f"{arm:20s}{statistics.median(values):8.3f} s   {ratio(values, seconds[first])}")
    if options.output:
        times = {
            arm: statistics.median(a / b for a, b in zip(values, seconds[first], strict=True))
            for arm, values in seconds.items()
        }
        write_json(options.output, {"backend": keras.backend.backend(), "clock": clock.__name__, "times": times})


if __name__ == "__main__":
    main()
