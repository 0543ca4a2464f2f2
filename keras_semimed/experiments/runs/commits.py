"""Which state of the source a run is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ("--", ".", ":(exclude)docs")
"""What counts: pages and measurements, which are committed draw by draw, change no run."""


def source_commit(at: str = "HEAD") -> str | None:
    """The last commit that changed the source, with `+` where it was changed since; None outside of a checkout.

    Args:
        at: The commit to look back from; one other than `HEAD` is taken without later changes.
    """
    found = _git("rev-list", "-1", at.removesuffix("+"), *SOURCE)
    if at != "HEAD":
        return found and found + ("+" if at.endswith("+") else "")
    return found and found + ("+" if _git("status", "--porcelain", "--untracked-files=no", *SOURCE) else "")


def _git(*words: str) -> str | None:
    if not (ROOT / ".git").exists():  # an installed package may lie below somebody else's checkout
        return None
    try:
        found = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
