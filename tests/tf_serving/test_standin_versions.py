"""What happens to versions on disk: policies, the new one before the old one, failures, and what is not noticed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from standin_process import StandIn, model_config, put_version, spec

Half = Callable[..., Path]


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", {3}),
        ("latest 2", {2, 3}),
        ("latest 0", {3}),
        ("all", {1, 2, 3}),
        ("specific 1 3", {1, 3}),
    ],
)
def test_version_policies(reloadable: StandIn, half: Half, policy: str, served: set[int]) -> None:
    """A model serves the versions its policy names, and Latest is the highest of them."""
    name = f"policy {policy}"
    reloadable.reload(model_config(name, half(1, 2, 3), policy))
    reloadable.wait_for_states(name, dict.fromkeys(served, "AVAILABLE"))
    assert reloadable.half(1, spec(name)) == (0.5 + max(served) + 1, max(served))
    for version in served:
        assert reloadable.half(1, spec(name, version=version)) == (0.5 + version + 1, version)


def test_names_that_are_no_numbers_are_not_versions(reloadable: StandIn, half: Half) -> None:
    """Leading zeros are fine; anything that is no integer is left alone."""
    base = half(1)
    (base / "1").rename(base / "0007")
    (base / "tmp-9").mkdir()
    reloadable.reload(model_config("names", base))
    assert reloadable.states("names") == {7: "AVAILABLE"}


def test_new_version_is_loaded_before_the_old_one_goes(reloadable: StandIn, half: Half, models: Path) -> None:
    """While versions are swapped every request is answered, by the old or by the new one, and the old one ends."""
    base = half(1)
    reloadable.reload(model_config("swap", base))
    put_version(models, base, 2)
    seen = {reloadable.half(1, spec("swap"))[1] for _ in range(200)}
    while 2 not in seen:
        seen.add(reloadable.half(1, spec("swap"))[1])
    assert seen <= {1, 2}
    reloadable.wait_for_states("swap", {2: "AVAILABLE", 1: "END"})
    log = reloadable.log()
    assert log.index("{name: swap version: 2}: AVAILABLE") < log.index("{name: swap version: 1}: UNLOADING")


def test_version_that_fails_to_load_leaves_the_old_one(reloadable: StandIn, half: Half, models: Path) -> None:
    """A new version that cannot be loaded ends with the reason, and the old one goes on."""
    base = half(1)
    reloadable.reload(model_config("fails", base))
    shutil.copytree(models / "broken" / "1", base / "2")
    reloadable.wait_for_states("fails", {2: "END", 1: "AVAILABLE"})
    failed = reloadable.statuses("fails")[2]
    assert failed.code != 0
    assert failed.message
    assert reloadable.half(1, spec("fails")) == (2.5, 1)


def test_version_overwritten_in_place_is_not_noticed(reloadable: StandIn, half: Half, models: Path) -> None:
    """Files that change below a version that is loaded change nothing: only new version numbers count."""
    base = half(1)
    reloadable.reload(model_config("overwritten", base), model_config("witness", half(1, name="witness")))
    shutil.rmtree(base / "1")
    shutil.copytree(models / "half" / "4", base / "1")
    put_version(models, base.with_name("witness"), 2)
    reloadable.wait_for_states("witness", {2: "AVAILABLE", 1: "END"})
    assert reloadable.half(1, spec("overwritten")) == (2.5, 1)


def test_version_taken_away_and_put_back_is_loaded_again(reloadable: StandIn, half: Half, models: Path) -> None:
    """A version that vanishes is unloaded, its model answers NOT_FOUND, and it is loaded when it is back."""
    base = half(1)
    reloadable.reload(model_config("returns", base))
    (base / "1").rename(base.with_name("aside"))
    reloadable.wait_for_states("returns", {1: "END"})
    with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(returns\)"):
        reloadable.half(1, spec("returns"))
    put_version(models, base, 1)
    reloadable.wait_for_states("returns", {1: "AVAILABLE"})


def linked(tmp_path: Path, name: str, target: Path) -> Path:
    """A base path whose version 1 is a link."""
    base = tmp_path / name
    base.mkdir()
    (base / "1").symlink_to(target)
    return base


def test_version_that_is_a_link_stays_when_its_files_vanish(
    reloadable: StandIn, half: Half, models: Path, tmp_path: Path
) -> None:
    """A version is what is listed in the base path, wherever it leads: it goes when the link goes."""
    files, witness = half(1, name="files"), half(1, name="witness")
    base = linked(tmp_path, "links", files / "1")
    reloadable.reload(model_config("linked", base, "specific 1"), model_config("witness", witness))
    assert reloadable.half(1, spec("linked", version=1)) == (2.5, 1)
    shutil.rmtree(files)
    put_version(models, witness, 2)
    reloadable.wait_for_states("witness", {2: "AVAILABLE", 1: "END"})
    assert reloadable.states("linked") == {1: "AVAILABLE"}
    assert reloadable.half(1, spec("linked", version=1)) == (2.5, 1)
    (base / "1").unlink()
    reloadable.wait_for_states("linked", {1: "END"})


def test_link_that_leads_nowhere_fails_alone(reloadable: StandIn, half: Half, tmp_path: Path) -> None:
    """Its model cannot be loaded, and says so; unlike a base path that is missing, it holds up no other."""
    nowhere, good = linked(tmp_path, "nowhere", tmp_path / "gone"), half(1)
    with pytest.raises(grpc.RpcError, match="did not become available"):
        reloadable.reload(model_config("nowhere", nowhere, "specific 1"), model_config("good", good))
    assert reloadable.states("nowhere") == {1: "END"}
    assert reloadable.states("good") == {1: "AVAILABLE"}
    later = half(1, name="later")
    reloadable.reload(model_config("nowhere", nowhere, "specific 1"), model_config("later", later))
    assert reloadable.states("later") == {1: "AVAILABLE"}


def test_base_path_that_vanishes_unloads_nothing(reloadable: StandIn, half: Half, models: Path) -> None:
    """A base path that is gone leaves its model served, and holds up news of every other model."""
    base, other = half(1), half(1, name="other")
    reloadable.reload(model_config("gone", base), model_config("other", other))
    base.rename(base.with_name("away"))
    reloadable.wait_for_log("Could not find base path .* for servable gone with error NOT_FOUND")
    put_version(models, other, 2)
    assert reloadable.half(1, spec("gone")) == (2.5, 1)
    assert reloadable.states("other") == {1: "AVAILABLE"}
    base.with_name("away").rename(base)
    reloadable.wait_for_states("other", {2: "AVAILABLE", 1: "END"})


def test_warm_up_requests_are_replayed(reloadable: StandIn, models: Path) -> None:
    """A model with recorded requests runs them before it is available."""
    reloadable.reload(model_config("warm", models / "warm"))
    log = reloadable.log()
    assert log.index("Replayed 1 warm-up requests") < log.index("{name: warm version: 1}: AVAILABLE")


def test_warm_up_that_fails_fails_the_load(reloadable: StandIn, models: Path) -> None:
    """A recorded request that the model refuses makes the load fail, with the reason in the status."""
    with pytest.raises(grpc.RpcError, match=r"Serving signature key .*no_such_signature.* not found"):
        reloadable.reload(model_config("warm_wrong", models / "warm_wrong"))
    assert reloadable.statuses("warm_wrong")[1].name == "END"
