"""How what is said about files is called in the shell."""

from __future__ import annotations

import re


def with_flags(text: str) -> str:
    """What a reader says about its arguments, with flags in their place, or behind where they stand in an example."""
    flags = {
        "mask_values": "--mask-value 255=1",
        "intensity_range": "--intensity-range 0 4095",
        "num_classes": "--num-classes",
        "mask_class_names": "--mask-class-names",
        "class_names": "--class-names",
        "mask_name": "--mask-name",
    }
    text = text.replace(
        "with mask_values; {range(128): 0, range(128, 256): 1}", "with --mask-value; 0..127=0 128..255=1"
    )
    for argument, flag in flags.items():
        text = text.replace(f"`{argument}`", flag.partition(" ")[0])
    named = [flag for argument, flag in flags.items() if re.search(rf"\b{argument}\b", text)]
    return f"{text} (here: {', '.join(named)})" if named else text
