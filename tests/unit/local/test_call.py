"""The command-line client: JSON to protobuf and back."""

from pathlib import Path

import pytest

from portico.local import call
from portico.wire import tensorflow_pb2, tf_serving_pb2, torchserve_pb2


def test_a_method_is_found_by_its_name() -> None:
    """Every service of portico.wire can be called, by the name it has on the wire."""
    method = call.find("tensorflow.serving.PredictionService/Predict")
    assert method.input_type is tf_serving_pb2.PredictRequest.DESCRIPTOR


@pytest.mark.parametrize("name", ["tensorflow.serving.PredictionService/Predct", "no.such.Service/Predict", "nonsense"])
def test_an_unknown_method_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt method is told before anything is sent."""
    assert call.main(["grpc", "127.0.0.1:1", name, "{}"]) == 2
    assert capsys.readouterr().err


def test_a_file_stands_for_bytes(tmp_path: Path) -> None:
    """ "@path" is replaced by the content, wherever it stands in the request."""
    (tmp_path / "picture").write_bytes(b"\x89PNG")
    assert call.with_files({"input": [{"data": f"@{tmp_path}/picture"}], "n": 1}) == {
        "input": [{"data": "iVBORw=="}],
        "n": 1,
    }


def test_an_answer_is_readable() -> None:
    """Maps, enums and float32 come out as a person writes them, and bytes as the JSON or text that they hold."""
    answer = tf_serving_pb2.PredictResponse()
    tensor = answer.outputs["probabilities"]
    tensor.dtype = tensorflow_pb2.DT_FLOAT
    tensor.float_val.extend([0.1, 0.9])
    tensor.tensor_shape.dim.add(size=2)
    assert call.readable(answer) == {
        "outputs": {
            "probabilities": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 2}]}, "float_val": [0.1, 0.9]}
        }
    }
    for content, shown in ((b'{"digit": 7}', {"digit": 7}), (b"seven", "seven"), (b"\xff", "\\xff")):
        assert call.readable(torchserve_pb2.PredictionResponse(prediction=content)) == {"prediction": shown}


def test_nobody_listening_is_an_error_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A stack that is not running is said so, by either kind of call, with an exit code and no traceback."""
    method = "tensorflow.serving.PredictionService/Predict"
    assert call.main(["grpc", "127.0.0.1:1", method, "{}"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err
    assert call.main(["rest", "http://127.0.0.1:1/v2"]) == 1
    assert "refused" in capsys.readouterr().err
