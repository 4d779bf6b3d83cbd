"""The TensorFlow Datasets builder; TFDS wants a folder of its own for it."""
