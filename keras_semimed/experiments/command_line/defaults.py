"""What a run takes where nothing is given: defaults of the method, the data set, the command, a demo, a variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_semimed.experiments.command_line import bundles
from keras_semimed.experiments.command_line.bundles import DATA_SETS, SPLITTING, VARIANTS, Command, is_folder
from keras_semimed.experiments.command_line.flags import OPTIMIZERS, Flag, default_groups, method_class
from keras_semimed.experiments.command_line.settings import flag_names
from keras_semimed.experiments.console import RecipeError, did_you_mean
from keras_semimed.parameters import parameters
from keras_semimed.source import constant

DECIDING = (
    "data",
    "demo",
    "network",
    "preset",
    "tasks",
    "optimizer_groups",
    "steps",
    *(each.flag for each in VARIANTS.values()),
)
"""Flags that change the defaults of others."""


def values_of(
    command: Command, method: str | None, flags: Mapping[str, Flag], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of each flag: what was given or else its default.

    A default that counts steps was meant for a run of some length, and follows the length of this one.
    """
    values: dict[str, Any] = {}
    meant_for: dict[str, int] = {}
    for layer in _layers(command, method, flags, given):
        known = {name: value for name, value in layer.items() if name in flags}
        values |= known
        meant_for |= {name: values["steps"] for name in known if flags[name].counts_steps}
    values |= given
    for name, steps in meant_for.items():
        if name not in given and values[name]:
            values[name] = round(values[name] * values["steps"] / steps)
    return values


def _layers(
    command: Command, method: str | None, flags: Mapping[str, Flag], given: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Defaults by the names of flags, of which the later ones count."""
    yield {name: flag.parameter.default for name, flag in flags.items()}
    # Of the method's class and its optimizer.
    source = method_class(method)
    takes = parameters(source)
    yield {"steps": takes["total_steps"].default, "image_size": takes["image_size"].default, "weights": "imagenet"}
    yield {"num_classes": None, "num_labels": None, **flag_names(constant(f"{source}.default_views"))}
    if "max_period" in takes:
        yield {"max_period": None}  # half a pass, which `with_epochs` knows
    network = given.get("network") or constant(f"{source}.default_network")
    masks = given.get("tasks") != "classification" and "segmentation" in constant(f"{source}.supports")
    groups = given.get("optimizer_groups") or default_groups(method, network if masks else "")
    rates = {name: each.default for name, each in parameters(OPTIMIZERS[groups]).items()}
    rates |= constant(f"{source}.preset_optimizers").get(given.get("preset"), {}).get(groups, {})
    yield {"optimizer_groups": groups, **flag_names(rates)}

    data = given.get("data", command.defaults.get("data"))
    if data in DATA_SETS:
        yield {"labeled": DATA_SETS[data].labeled, "split": DATA_SETS[data].split}
        yield {"output": Path("runs") / f"{data}_{method}"}
    elif data is not None and not given.get("demo"):
        yield {"labeled": 1.0, "split": "folder", "output": Path("runs") / f"{Path(data).name}_{method}"}
    own = "data" in given and is_folder(given["data"])  # which has its own parts
    yield {name: value for name, value in command.defaults.items() if not own or name not in SPLITTING}
    if given.get("demo"):
        phantom = command.phantom or DATA_SETS.get(data, DATA_SETS[bundles.ULTRASOUND]).phantom
        slow = [name for name, flag in flags.items() if name.endswith("_momentum") and flag.parameter.default]
        yield {name: min(flags[name].parameter.default, bundles.DEMO_MOMENTUM) for name in slow}
        yield {**bundles.DEMO, **bundles.DEMO_OF_DATA[phantom], "decoder_filters": bundles.DEMO_OF_NETWORK[network]}
        # The supervised baseline of a command is to be compared with its method.
        like = command.method if method == "supervised" and command.method else str(method)
        yield bundles.DEMO_OF_METHOD.get(like, {})
        yield command.demo
    if method in VARIANTS:
        variants = VARIANTS[method]
        yield variants.choices[given.get(variants.flag, variants.default)]


def control_of(method: str, arguments: Mapping[str, Any]) -> dict[str, float]:
    """What takes away all that is learnt without labels: weights at 0; the run checks that nothing else weighs it.

    Raises:
        RecipeError: If the method has none.
    """
    weights = [name for name in arguments if name.startswith("lambda_") and name not in bundles.LABELED_WEIGHTS]
    found = bundles.CONTROL.get(method, dict.fromkeys(weights, 0.0))
    if not found:
        raise RecipeError(f"--control: {method} has no argument lambda_… that weighs what is learnt without labels")
    return dict(found)


def from_preset(method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with what is None filled in by the preset.

    Raises:
        RecipeError: If there is no such preset.
    """
    presets = constant(f"{method_class(method)}.presets")
    chosen = arguments["preset"]
    if chosen not in presets:
        raise RecipeError(f"--preset: {chosen!r} is none of {', '.join(presets)}{did_you_mean(chosen, presets)}")
    return {name: presets[chosen].get(name) if value is None else value for name, value in arguments.items()}


def check_steps(flags: Mapping[str, Flag], given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuses what was given by hand and would begin, or still rise, after the last step.

    Args:
        flags: All of them, by name.
        given: What was given by hand.
        values: Of all flags.

    Raises:
        RecipeError: Which names the flag.
    """
    steps = values["steps"]

    def counted(value: Any) -> int:
        """A number of steps, of which a share of the run is one too."""
        return round(value * steps) if isinstance(value, float) and value < 1 else int(value or 0)

    for name, value in given.items():
        flag = flags[name]
        if flag.counts_steps and isinstance(value, int) and value >= steps + name.endswith("_ramp"):
            raise RecipeError(
                f"{flag.word} {value} lies beyond the end of the run (--steps {steps}); give less, or leave it out: "
                "its default follows --steps"
            )
        if name.endswith(("_start", "_ramp")) and flag.counts_steps:
            start, ramp = (flags.get(f"{name.rpartition('_')[0]}_{part}") for part in ("start", "ramp"))
            if start and ramp and counted(values[start.name]) + counted(values[ramp.name]) > steps:
                raise RecipeError(
                    f"{start.word} {values[start.name]} and {ramp.word} {values[ramp.name]} end beyond the run "
                    f"(--steps {steps}); give less, or leave both out: their defaults follow --steps"
                )
        if flag.of == "method" and name.endswith("_delay") and isinstance(value, float) and value >= 1:
            raise RecipeError(f"{flag.word} {value:g} lies beyond the end of the run: it is a share of it, below 1")
