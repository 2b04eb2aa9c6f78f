"""Each refusal says which input, what was given, and what the model takes."""

import pytest

from portico.errors import InvalidRequest
from portico.inference import InferenceRequest, Tensor
from portico.routing import Route, Server, Signature, TensorSpec
from portico.validation import check_explains, signature_of, validate

ROUTE = Route(
    "iris",
    "1",
    Server.TF_SERVING,
    "iris--a",
    "1",
    "print",
    {
        "serving_default": Signature(
            (TensorSpec("x", "FP32", (-1, 4)), TensorSpec("k", "INT32", ())), (TensorSpec("y", "FP32", (-1,)),)
        ),
        "loose": Signature((TensorSpec("any", "BYTES", None),), (TensorSpec("y", "FP32", None),)),
        "none": Signature((), (TensorSpec("y", "FP32", None),)),
    },
)
UNDECLARED = Route("digits", "1.0", Server.TORCHSERVE, "digits--a", "1.0", "print")
X = Tensor("x", "FP32", (2, 4), bytes(32))
K = Tensor("k", "INT32", (), bytes(4))


def refusal(*inputs: Tensor, outputs: tuple[str, ...] = (), signature: str = "") -> str:
    """The text that the client reads."""
    with pytest.raises(InvalidRequest) as caught:
        validate(ROUTE, InferenceRequest(inputs, outputs, signature))
    return str(caught.value)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_what_fits(rows: int) -> None:
    """Any size where the model declares -1, the inputs in any order, and outputs that it has, are accepted."""
    x = Tensor("x", "FP32", (rows, 4), bytes(16 * rows))
    validate(ROUTE, InferenceRequest((x, K)))
    validate(ROUTE, InferenceRequest((K, x), ("y",), "serving_default"))


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    """An input whose rank is not declared takes any shape."""
    validate(ROUTE, InferenceRequest((Tensor("any", "BYTES", shape, b""),), signature="loose"))


def test_no_declared_signature() -> None:
    """A model whose server declares no signature takes whatever its handler does."""
    for name in ("", "serving_default"):
        validate(UNDECLARED, InferenceRequest((X, K), ("what",), name))
        assert signature_of(UNDECLARED, name) is None


def test_a_signature_of_a_model_that_declares_none() -> None:
    """A signature that is named in vain is refused: the client means something that would not happen."""
    with pytest.raises(InvalidRequest, match=r"'digits' has no signature 'triple': TorchServe declares none"):
        validate(UNDECLARED, InferenceRequest((X,), signature="triple"))


def test_explanations() -> None:
    """Only a model of TorchServe may have explanations."""
    check_explains(UNDECLARED)
    with pytest.raises(InvalidRequest, match=r"^Model 'iris' has no explanations: TF Serving gives none\.$"):
        check_explains(ROUTE)


@pytest.mark.parametrize("name", ["", "serving_default"])
def test_the_default_signature(name: str) -> None:
    """A call without a signature means `serving_default`."""
    assert signature_of(ROUTE, name) is ROUTE.signatures["serving_default"]


def test_unknown_signature() -> None:
    """A signature that the model does not have is refused, with those it has."""
    message = refusal(X, K, signature="train")
    assert message == "Model 'iris' has no signature 'train'. Its signatures: 'loose', 'none', 'serving_default'."


def test_wrong_datatype() -> None:
    """Another datatype is refused: which input, what was given, what the model takes."""
    message = refusal(Tensor("x", "INT64", (2, 4), bytes(64)), K)
    assert message == "Input 'x' of model 'iris': given INT64 [2, 4], the model takes FP32 [-1, 4]."


@pytest.mark.parametrize("shape", [(4,), (2, 5), (2, 4, 1), ()])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    """Another size or rank is refused: which input, what was given, what the model takes."""
    message = refusal(Tensor("x", "FP32", shape, b""), K)
    assert message == f"Input 'x' of model 'iris': given FP32 {list(shape)}, the model takes FP32 [-1, 4]."


def test_wrong_datatype_of_any_shape() -> None:
    """For an input of any shape, the refusal says that too."""
    assert "the model takes BYTES of any shape" in refusal(Tensor("any", "FP32", (1,), bytes(4)), signature="loose")


def test_unknown_input() -> None:
    """An input that the model does not have is refused, with those it has and what they take."""
    message = refusal(X, K, Tensor("z", "FP32", (), bytes(4)))
    assert message == "Model 'iris' has no input 'z'. Its inputs: 'x' (FP32 [-1, 4]), 'k' (INT32 [])."


def test_unknown_input_of_a_model_without_inputs() -> None:
    """A model that takes no input says so."""
    assert refusal(X, signature="none") == "Model 'iris' has no input 'x'. Its inputs: none."


def test_missing_inputs() -> None:
    """Inputs that are left out are named, with what they take."""
    assert "also takes input 'k' (INT32 []), which" in refusal(X)
    assert "also takes input 'x' (FP32 [-1, 4]), 'k' (INT32 []), which" in refusal()


def test_the_same_input_twice() -> None:
    """An input that is given twice is refused as that, and not as unknown."""
    assert refusal(X, K, X) == "Model 'iris' was given input 'x' twice."


def test_the_same_input_twice_without_a_signature() -> None:
    """An input that is given twice is refused even where nothing else is known of a model's inputs."""
    with pytest.raises(InvalidRequest, match="Model 'digits' was given input 'x' twice"):
        validate(UNDECLARED, InferenceRequest((K, X, X)))


def test_unknown_output() -> None:
    """An output that the model does not have is refused, with those it has."""
    assert refusal(X, K, outputs=("y", "z")) == "Model 'iris' has no output 'z'. Its outputs: y."
