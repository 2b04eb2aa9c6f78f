"""HandleReloadConfigRequest: the whole list is replaced, labels follow their rule, and bad configs are refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from standin_process import StandIn, Start, model_config, put_version, spec

from portico.wire import tf_serving_pb2 as wire

Half = Callable[..., Path]


def refused(server: StandIn, *configs: wire.ModelConfig) -> tuple[str, str]:
    """Code and text of a reload that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        server.reload(*configs)
    error: Any = caught.value
    return error.code().name, error.details()


def test_reload_adds_keeps_and_removes(reloadable: StandIn, half: Half) -> None:
    """What is new is available when the call returns, what stays is untouched, what is not listed is unloaded."""
    base = half(1)
    first = reloadable.reload(model_config("stays", base), model_config("goes", base))
    assert first.status.error_code == 0
    reloadable.reload(model_config("stays", base), model_config("comes", base))
    assert reloadable.half(1, spec("comes")) == (2.5, 1)
    assert reloadable.half(1, spec("stays")) == (2.5, 1)
    reloadable.wait_for_states("goes", {1: "END"})
    assert reloadable.log().count("{name: stays version: 1}: LOADING") == 1


def test_model_removed_and_added_again_is_served_again(reloadable: StandIn, half: Half) -> None:
    """A model that comes back is loaded again before the call returns."""
    base = half(1)
    for _ in range(2):
        reloadable.reload(model_config("again", base))
        assert reloadable.half(1, spec("again")) == (2.5, 1)
        reloadable.reload()
        # As with TF Serving, whose monitor takes the end of the old one for that of the new one (server_core.cc).
        reloadable.wait_for_states("again", {1: "END"})


def test_empty_list_unloads_everything(reloadable: StandIn, half: Half) -> None:
    """An empty list is a config like any other."""
    reloadable.reload(model_config("last", half(1)))
    reloadable.reload()
    reloadable.wait_for_states("last", {1: "END"})


def test_policy_of_a_model_can_change(reloadable: StandIn, half: Half) -> None:
    """A new policy for a known model is followed at the next poll."""
    base = half(1, 2)
    reloadable.reload(model_config("repolicy", base))
    reloadable.reload(model_config("repolicy", base, "specific 1"))
    reloadable.wait_for_states("repolicy", {2: "END", 1: "AVAILABLE"})


def test_label_goes_to_available_versions_only(reloadable: StandIn, half: Half) -> None:
    """A label can be assigned once its version is available, moves with the config, and answers as the version."""
    base = half(1, 2)
    labelled = model_config("labels", base, "all", stable=1, canary=2)
    text = "Request to assign label to version 2 of model labels, which is not currently available for inference"
    assert refused(reloadable, labelled) == ("FAILED_PRECONDITION", text)
    reloadable.reload(model_config("labels", base, "all"))
    reloadable.wait_for_states("labels", {2: "AVAILABLE", 1: "AVAILABLE"})
    reloadable.reload(labelled)
    assert reloadable.half(1, spec("labels", label="stable")) == (2.5, 1)
    assert reloadable.half(1, spec("labels", label="canary")) == (3.5, 2)
    reloadable.reload(model_config("labels", base, "all", stable=2))
    assert reloadable.half(1, spec("labels", label="stable")) == (3.5, 2)
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: canary"):
        reloadable.half(1, spec("labels", label="canary"))


@pytest.mark.parametrize(
    ("configs", "code", "text"),
    [
        (
            [model_config("twice", Path("/nowhere")), model_config("twice", Path("/nowhere"))],
            "INVALID_ARGUMENT",
            "Illegal to list model twice multiple times in config list",
        ),
        (
            [model_config("relative", Path("some/where"))],
            "INVALID_ARGUMENT",
            "Expected model relative to have an absolute path or URI; got base_path()=some/where",
        ),
        (
            [wire.ModelConfig(name="odd", base_path="/nowhere", model_platform="caffe")],
            "INVALID_ARGUMENT",
            "Model odd requests unsupported platform caffe",
        ),
    ],
)
def test_bad_configs_are_refused(
    reloadable: StandIn, half: Half, configs: list[wire.ModelConfig], code: str, text: str
) -> None:
    """A config that makes no sense is refused with TF Serving's text, and what is served stays."""
    reloadable.reload(model_config("kept", half(1)))
    assert refused(reloadable, *configs) == (code, text)
    assert reloadable.half(1, spec("kept")) == (2.5, 1)


def test_config_without_a_list_is_refused(reloadable: StandIn) -> None:
    """Only a model_config_list can be sent."""
    with pytest.raises(grpc.RpcError, match="Only ModelConfigList is currently supported"):
        reloadable.call("ModelService/HandleReloadConfigRequest", wire.ReloadConfigRequest(), wire.ReloadConfigResponse)


@pytest.mark.parametrize("model", ["broken", "other_tag"])
def test_new_model_that_cannot_be_loaded_fails_the_call(reloadable: StandIn, models: Path, model: str) -> None:
    """The call says which model did not become available and why; GetModelStatus says so too."""
    code, text = refused(reloadable, model_config(model, models / model))
    assert code == "UNKNOWN"
    assert text.startswith(f"1 model(s) did not become available: {{{{{{name: {model} version: 1}} due to error: ")
    status = reloadable.statuses(model)[1]
    assert (status.name, status.code != 0) == ("END", True)
    if model == "other_tag":
        assert "Could not find meta graph def matching supplied tags: { serve }" in status.message


def test_new_model_without_versions_holds_up_the_call(reloadable: StandIn, half: Half, models: Path) -> None:
    """The call waits, without a limit of its own, until a version appears; others are served meanwhile."""
    base = half()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            reloadable.reload, model_config("empty", base), model_config("full", half(1, name="full"))
        )
        reloadable.wait_for_states("full", {1: "AVAILABLE"})
        assert not waiting.done()
        put_version(models, base, 1)
        assert waiting.result(timeout=30).status.error_code == 0
    assert reloadable.half(1, spec("empty")) == (2.5, 1)


def test_platform_that_is_missing_blocks_every_later_reload(start: Start, half: Half) -> None:
    """As in the real server a config without a platform is remembered, and each later one is measured against it."""
    base = half(1)
    server = start(f"--model_base_path={base}").wait_ready()
    text = (
        "Illegal setting neither ModelServerConfig::model_type (deprecated) "
        "nor ModelServerConfig::model_platform, model name is plain"
    )
    without = wire.ModelConfig(name="plain", base_path=str(base))
    assert refused(server, without) == ("INVALID_ARGUMENT", text)
    assert refused(server, model_config("default", base)) == ("INVALID_ARGUMENT", text)
    assert server.half(1, spec("default")) == (2.5, 1)
