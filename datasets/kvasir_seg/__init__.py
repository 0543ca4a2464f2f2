"""TensorFlow Datasets builder of Kvasir-SEG."""
