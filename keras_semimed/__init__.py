"""Semi-supervised segmentation and classification of medical images with Keras 3."""

__version__ = "0.1.0"
