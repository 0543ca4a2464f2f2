"""TensorFlow Datasets builder of BUSI."""
