"""Synthetic breast ultrasound phantoms as a TFDS data set."""
