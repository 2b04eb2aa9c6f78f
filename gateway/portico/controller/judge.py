"""Opens what has settled: a version's files, a policy file. Called by `repository` in threads of its own; blocks, and
takes nothing that it reads for granted.
"""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from portico.controller.archive import archive_version
from portico.controller.fingerprint import fingerprint
from portico.controller.inventory import FoundPolicy, FoundVersion
from portico.controller.policy import Policy
from portico.controller.policy_file import read_policy
from portico.controller.rejected import Rejected, Stopped, StopSign, never, printable, reason
from portico.controller.saved_model import check_saved_model
from portico.routing import Server

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A version's name, its name for the model server, and its fingerprint; or its `problem`.

    `ended` is when (monotonic seconds).
    """

    version: str
    served: str = ""
    fingerprint: str = ""
    problem: str = ""
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class JudgedPolicy:
    """A policy and its warm-up file, relative to the repository; or a `problem`.

    With `passing`, the problem may end while the policy file stays as it is.
    """

    policy: Policy | None = None
    warmup: str = ""
    problem: str = ""
    passing: bool = False


def judge(root: Path, found: FoundVersion, stopped: StopSign = never) -> Judgement:
    """Whatever is wrong with the files of one version becomes its problem. Raises Stopped."""
    path = root / found.path
    served = digest = problem = ""
    try:
        if found.server is Server.TF_SERVING:
            check_saved_model(path, found.files, stopped)
            served = found.version
        else:
            served = archive_version(path, stopped)
        digest = fingerprint(path, found.files, stopped)
    except (OSError, Rejected) as error:
        problem = reason(error)
    except Stopped:
        raise
    except Exception as error:
        # Files are untrusted, and the libraries that read them raise what they like.
        _log.exception("%s cannot be judged", found.path)
        problem = f"its files are damaged: {type(error).__name__}"
    return Judgement(found.version or served, served, digest, problem, time.monotonic())


def judge_policy(root: Path, found: FoundPolicy) -> JudgedPolicy:
    """Whatever is wrong with a policy file becomes its problem, which begins with the file's name."""
    name = os.path.basename(found.path)
    try:
        policy = read_policy(root / found.path)
    except Rejected as error:
        return JudgedPolicy(problem=named(name, reason(error)))
    except OSError as error:
        return JudgedPolicy(problem=f"{name}: cannot be read: {error.strerror or error}")
    except Exception as error:
        _log.exception("%s cannot be judged", found.path)
        return JudgedPolicy(problem=f"{name}: is damaged: {type(error).__name__}")
    if not policy.warmup:
        return JudgedPolicy(policy)
    warmup = os.path.normpath(os.path.join(os.path.dirname(found.path), policy.warmup))
    home, target = os.path.realpath(root), os.path.realpath(root / warmup)
    if not target.startswith(f"{home.rstrip('/')}/"):
        return JudgedPolicy(problem=named(name, f"its 'warmup' leads out of the repository: {policy.warmup}"))
    if not os.path.isfile(target):
        return JudgedPolicy(problem=named(name, f"its 'warmup' is no file: {policy.warmup}"), passing=True)
    return JudgedPolicy(policy, warmup)


def named(name: str, problem: str) -> str:
    """The problem with the name of its file before it, unless it is there already."""
    return printable(problem if problem.startswith(f"{name}:") else f"{name}: {problem}")
