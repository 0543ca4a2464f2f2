"""One run as a process of its own: `python -m keras_semimed.experiments hermes_busi [flags]`."""

from __future__ import annotations

import sys

from keras_semimed.experiments.command_line import command

if __name__ == "__main__":
    sys.exit(command.main(sys.argv[1], sys.argv[2:], None))
