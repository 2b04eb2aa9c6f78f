"""Loads a SavedModel, of TensorFlow 1 or 2, into a session and runs its tensors by name.

The only module that calls the TensorFlow runtime; knows signatures as messages, and no request
(servables/tensorflow/saved_model_bundle_factory.cc runs models through a session as well).
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions, ConfigProto
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from tf_serving_standin.errors import Code, ServingError, from_exception, invalid_argument, not_found
from tf_serving_standin.tensors import Array, datatype_name, datatype_of

_MAX_CALLABLES = 64
_CallableKey = tuple[tuple[str, ...], tuple[str, ...], int]


class SavedModel:
    """One loaded SavedModel; safe to run from many threads at once."""

    def __init__(self, session: Any, meta_graph: MetaGraphDef) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._callables: OrderedDict[_CallableKey, Any] = OrderedDict()
        self.signatures: Mapping[str, SignatureDef] = dict(meta_graph.signature_def)

    @classmethod
    def load(cls, path: str, tags: Sequence[str], session_config: ConfigProto) -> "SavedModel":
        """Load the meta graph with exactly `tags` from directory `path`.

        Raises NOT_FOUND when there is no SavedModel or no such meta graph, else what TensorFlow raises.
        """
        if not any(os.path.isfile(os.path.join(path, f"saved_model.{end}")) for end in ("pb", "pbtxt", "cpb")):
            raise not_found(
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}. "
                "Check that the directory exists and that you have the right permissions for accessing it."
            )
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            with graph.as_default():
                meta_graph = SavedModelLoader(path).load(session, list(tags))
        except Exception as error:
            session.close()
            raise _load_error(error, tags) from error
        return cls(session, meta_graph)

    def close(self) -> None:
        """Free the session; no call may be under way."""
        self._callables.clear()
        self._session.close()

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout_ms: int = 0) -> list[Array]:
        """Feed arrays by tensor name, return the fetched tensors; 0 means no time limit.

        Raises INVALID_ARGUMENT for a wrong datatype and otherwise the code and text of TensorFlow's own error.
        """
        names = tuple(sorted(feeds))
        wanted = tuple(dict.fromkeys(fetches))
        try:
            run, dtypes = self._callable(names, wanted, timeout_ms)
            for index, (name, expected) in enumerate(zip(names, dtypes, strict=True)):
                given = datatype_of(feeds[name])
                if given != expected:
                    raise invalid_argument(
                        f"Expects arg[{index}] to be {datatype_name(expected)} but {datatype_name(given)} is provided"
                    )
            values = dict(zip(wanted, run(*(feeds[name] for name in names)), strict=True))
        except Exception as error:
            raise from_exception(error) from error
        return [_array(values[name]) for name in fetches]

    def _callable(self, names: tuple[str, ...], wanted: tuple[str, ...], timeout_ms: int) -> tuple[Any, list[int]]:
        key = (names, wanted, timeout_ms)
        with self._lock:
            found = self._callables.get(key)
            if found is None:
                options = CallableOptions(feed=names, fetch=wanted)
                options.run_options.timeout_in_ms = timeout_ms
                dtypes = [self._session.graph.get_tensor_by_name(name).dtype.as_datatype_enum for name in names]
                # The private call is the only one that feeds arrays as they are: run() casts them to the placeholder.
                found = (self._session._make_callable_from_options(options), dtypes)  # noqa: SLF001
                self._callables[key] = found
                if len(self._callables) > _MAX_CALLABLES:
                    self._callables.popitem(last=False)
            else:
                self._callables.move_to_end(key)
            return found


def _array(value: Any) -> Array:
    if isinstance(value, (bytes, str)):
        return np.array(value, dtype=np.object_)
    return np.asarray(value)


def _load_error(error: Exception, tags: Sequence[str]) -> ServingError:
    text = str(error)
    if "could not be found in SavedModel" in text:
        return not_found(
            f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To inspect available "
            "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`"
        )
    mapped = from_exception(error)
    if mapped.code is Code.INTERNAL and isinstance(error, (OSError, ValueError)):
        return ServingError(Code.INVALID_ARGUMENT, text)
    return mapped
