"""The commands of the shell: `semimed COMMAND`, or `python -m keras_semimed COMMAND`."""
