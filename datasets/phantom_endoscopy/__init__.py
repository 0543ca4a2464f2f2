"""Synthetic colonoscopy phantoms as a TFDS data set."""
