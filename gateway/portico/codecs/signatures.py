"""TensorFlow's signatures ↔ the routes' form of them. Used by the controller, which reads them from TF Serving, and by
whoever shows them in TF Serving's own form.
"""

from collections.abc import Mapping

from portico.routing import Signature, TensorSpec
from portico.wire import tensorflow_pb2, tf_serving_pb2

