"""What the mask of an image is called, as `mask_name` declares it."""

from __future__ import annotations

import re

_ARROW = "->"


def check_mask_name(mask_name: str) -> None:
    """Refuses what is no pattern of mask names.

    Raises:
        ValueError: Unless the mask's part holds `{}`, an image's stem, or `{file}`, its name, once, and the image's
            part, where there is one, `{}` once.
    """
    image, mask = _patterns(mask_name)
    once = mask.count("{}") + mask.count("{file}") == 1 and image.count("{}") == 1 and "{file}" not in image
    if not once or re.search(r"[/\\]", mask_name):
        raise ValueError(
            "`mask_name` must hold {} for the image's name without suffix, or {file} for the one with it, once and no "
            f"folder, found {mask_name!r}; write it as in '{{}}_mask', or as in 'img_{{}} -> mask_{{}}'"
        )


def mask_of(stem: str, name: str, mask_name: str) -> str | None:
    """Returns what the mask of an image is called, without its suffix; None for an image of another pattern.

    Args:
        stem: The image's name without suffix.
        name: The image's name with suffix.
        mask_name: The pattern, as in `read_folder`.
    """
    image, mask = _patterns(mask_name)
    before, _, behind = image.partition("{}")
    if not (stem.startswith(before) and stem.endswith(behind) and len(stem) > len(before) + len(behind)):
        return None
    return mask.replace("{}", stem[len(before) : len(stem) - len(behind)]).replace("{file}", name)


def _patterns(mask_name: str) -> tuple[str, str]:
    """What an image and its mask are called."""
    image, arrow, mask = mask_name.partition(_ARROW)
    return (image.strip(), mask.strip()) if arrow else ("{}", mask_name)
