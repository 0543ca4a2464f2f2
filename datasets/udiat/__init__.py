"""TensorFlow Datasets builder of UDIAT."""
