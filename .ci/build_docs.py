"""Builds the site of the documents: README and docs/*.md beside the API reference, with one search over both.

    python .ci/build_docs.py [FOLDER]

FOLDER is build/docs if none is given. A warning is an error, and so is a link or an anchor that leads nowhere.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / ".ci" / "site" / "mkdocs.yml"


def main() -> int:
    """Builds the site and says how to read it; returns the exit status."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "docs").resolve()
    # Not with --quiet: warnings that are not shown do not count as errors.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    command += ["--config-file", str(CONFIGURATION), "--site-dir", str(folder)]
    status = subprocess.call(command, cwd=ROOT)
    if status == 0:
        print(f"{folder / 'index.html'}\nwith its search: python -m http.server --directory {folder}")
    return status


if __name__ == "__main__":
    sys.exit(main())
