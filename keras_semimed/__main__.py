"""`python -m keras_semimed COMMAND`, the same as `semimed COMMAND`."""

import sys

from keras_semimed.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
