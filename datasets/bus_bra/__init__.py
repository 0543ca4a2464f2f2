"""TensorFlow Datasets builder of BUS-BRA."""
