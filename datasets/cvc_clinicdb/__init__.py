"""TensorFlow Datasets builder of CVC-ClinicDB."""
