"""Replays a model's recorded warm-up requests right after it is loaded, before it counts as available.

Called by the loader; a request that fails fails the load (servables/tensorflow/saved_model_warmup.cc).
"""

import logging
import os

import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from tf_serving_standin.errors import Code, ServingError, invalid_argument
from tf_serving_standin.examples import classify, multi_inference, regress
from tf_serving_standin.predict import RunSettings, predict
from tf_serving_standin.saved_model import SavedModel

_log = logging.getLogger(__name__)
_REQUESTS_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS = 1000


def warm_up(model: SavedModel, path: str, iterations: int) -> None:
    """Run each PredictionLog in `path`/assets.extra/tf_serving_warmup_requests `iterations` times, if the file exists.

    Raises INVALID_ARGUMENT for more than 1000 records or one that is no PredictionLog, else what the request raises.
    """
    file = os.path.join(path, _REQUESTS_FILE)
    if not os.path.exists(file):
        return
    count = 0
    for record in tf.compat.v1.io.tf_record_iterator(file):
        count += 1
        if count > _MAX_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {file}")
        try:
            log = PredictionLog.FromString(record)
        except Exception as error:
            raise invalid_argument(f"Failed to parse warmup record {count} from {file}") from error
        for _ in range(iterations):
            _replay(model, log)
    _log.info("Replayed %d warm-up requests from %s", count, file)


def _replay(model: SavedModel, log: PredictionLog) -> None:
    kind, settings = log.WhichOneof("log_type"), RunSettings()
    if kind == "predict_log":
        request = log.predict_log.request
        predict(model, request.model_spec.signature_name, request.inputs, request.output_filter, settings)
    elif kind == "classify_log":
        classify(model, log.classify_log.request.model_spec.signature_name, log.classify_log.request.input, settings)
    elif kind == "regress_log":
        regress(model, log.regress_log.request.model_spec.signature_name, log.regress_log.request.input, settings)
    elif kind == "multi_inference_log":
        multi_inference(model, 0, log.multi_inference_log.request, settings)
    elif kind is not None:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
