"""A stand-in for `tensorflow_model_server`: TF Serving's protocol on TensorFlow's Python runtime.

For laptops, tests and machines without containers; it is not the real binary and knows nothing of what calls it.
"""

__version__ = "0.1.0"
