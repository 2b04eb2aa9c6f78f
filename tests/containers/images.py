"""Builds the images that docker-compose.yml names: stand-ins under the official names, and the gateway's own.

    python tests/containers/images.py [official]

With `official`, all but the gateway's are pulled. Called by the tests' conftest, too.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import debian
from engine import Engine, EngineError, engine

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = ROOT / "tests/containers/images"
LABEL = "portico.standin"
GATEWAY = "portico:local"
PYTHON = "portico-standin/python:bookworm"
BUILD_SECONDS = 900.0
AT_ONCE = 3
# Folders of .venv that are copied into stand-ins.
ENVIRONMENTS = ("gateway", "tf-serving", "torchserve")
BUNDLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Names:
    """The official names in use, tags included, read from the files that use them."""

    python: str
    python_build: str
    envoy: str
    redis: str
    tf_serving: str
    torchserve: str

    @classmethod
    def read(cls) -> "Names":
        """From docker-compose.yml and the gateway's Dockerfile."""
        text = (ROOT / "docker-compose.yml").read_text() + (ROOT / "gateway/Dockerfile").read_text()
        used: set[str] = set(re.findall(r"^\s*(?:image:|FROM) ([\w./-]+:[\w.-]+)", text, re.M)) - {GATEWAY}

        def only(pattern: str) -> str:
            found = sorted(name for name in used if re.fullmatch(pattern, name))
            if len(found) != 1:
                raise EngineError(
                    f"One image is expected in docker-compose.yml or gateway/Dockerfile as {pattern}: {found}"
                )
            used.remove(found[0])
            return found[0]

        names = cls(
            python=only(r"python:.*-slim-bookworm"),
            python_build=only(r"python:.*-bookworm"),
            envoy=only(r"envoyproxy/envoy:.*"),
            redis=only(r"redis:.*-alpine"),
            tf_serving=only(r"tensorflow/serving:.*"),
            torchserve=only(r"pytorch/torchserve:.*-cpu"),
        )
        if used:
            raise EngineError(f"There is no stand-in for {', '.join(sorted(used))}: add one to {__file__}")
        return names

    def all(self) -> list[str]:
        """In the order of the fields."""
        return list(vars(self).values())


@dataclass(frozen=True)
class Build:
    """Builds with this engine; `secrets` are options of `docker build`."""

    engine: Engine
    secrets: Sequence[str]
    say: Say

    def stand_in(self, folder: str, *names: str) -> None:
        """From images/<folder>/Dockerfile, under all these names."""
        self.image(STAND_INS / folder / "Dockerfile", *names)

    def image(self, dockerfile: Path, *names: str) -> None:
        """Raises EngineError with the end of what the build said."""
        tags = [part for name in names for part in ("--tag", name)]
        options = ["--progress=plain", "--file", str(dockerfile), *tags, *self.secrets]
        # The checkout, spelled in another way for each image: builders keep what was sent for each spelling, and the
        # next build sends only what differs.
        context = str(dockerfile.parent / os.path.relpath(ROOT, dockerfile.parent))
        with self.timed(names[-1]):
            self.engine.docker("build", *options, context, seconds=BUILD_SECONDS)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Says how long it took until this image was there, and how large it is."""
        started = time.monotonic()
        yield
        size = int(self.engine.docker("image", "inspect", "--format", "{{.Size}}", name))
        self.say(f"{name}: {time.monotonic() - started:.1f} s, {size / 1e6:.0f} MB")


def build_images(engine: Engine, official: bool, say: Say) -> None:
    """Every image of docker-compose.yml is there afterwards. Raises EngineError or PackageError, saying what to do."""
    names = Names.read()
    with tempfile.TemporaryDirectory(prefix="portico-build-") as scratch:
        build = Build(engine, _secrets(Path(scratch), official), say)
        if official:
            _pull(build, names)
            build.image(ROOT / "gateway/Dockerfile", GATEWAY)
        else:
            _refuse_to_overwrite(engine, names)
            _require_environments()
            _stand_ins(build, names)


def _stand_ins(build: Build, names: Names) -> None:
    """One after the other what others are built on, the rest together."""
    if _label(build.engine, debian.NAME) != debian.LABEL:
        with build.timed(debian.NAME):
            debian.import_debian(build.engine)
    build.stand_in("python", PYTHON, names.python)

    def gateway() -> None:
        build.stand_in("python-build", names.python_build)
        build.image(ROOT / "gateway/Dockerfile", GATEWAY)

    jobs: list[Callable[[], None]] = [
        lambda: build.stand_in("torchserve", names.torchserve),
        lambda: build.stand_in("tf-serving", names.tf_serving),
        gateway,
        lambda: build.stand_in("redis", names.redis),
        lambda: build.stand_in("envoy", names.envoy),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for done in [pool.submit(job) for job in jobs]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that run are waited for
            raise


def _pull(build: Build, names: Names) -> None:
    """What is missing, and in place of stand-ins."""
    for name in names.all():
        if _label(build.engine, name) != "":
            try:
                with build.timed(name):
                    build.engine.docker("pull", name, seconds=BUILD_SECONDS)
            except EngineError as error:
                raise EngineError(
                    f"{error}\nWhere no registry can be reached, build stand-ins: leave IMAGES empty."
                ) from error


def _label(engine: Engine, name: str) -> str | None:
    """Which stand-in this image is; empty for another's image, None where there is none."""
    try:
        label = engine.docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name)
    except EngineError:
        return None
    return label.strip().replace("<no value>", "")


def remove_names(engine: Engine) -> None:
    """Takes the official names from the stand-ins, so that `docker compose up` pulls the real images again. What they
    were built of stays cached.
    """
    engine.docker("image", "rm", *(name for name in Names.read().all() if _label(engine, name)))


def _refuse_to_overwrite(engine: Engine, names: Names) -> None:
    real = [name for name in names.all() if _label(engine, name) == ""]
    if real:
        raise EngineError(
            f"This engine has images that are no stand-ins: {', '.join(real)}. Use them with IMAGES=official, "
            f"or remove them: docker image rm {' '.join(real)}"
        )


def _require_environments() -> None:
    """Their packages go into the images, where Python is Debian's 3.11."""
    for name in ENVIRONMENTS:
        home = ROOT / ".venv" / name
        if not home.exists():
            raise EngineError(f"{home} is not there: run `make setup` first.")
        if not (home / "lib/python3.11").exists():
            raise EngineError(
                f"Stand-ins need environments of Python 3.11, and {home} has another: run "
                "`make clean setup PYTHON=python3.11`, or use IMAGES=official."
            )


def _secrets(scratch: Path, official: bool) -> list[str]:
    """Files of the host that builds may read and that do not stay in images: certificates, and apt's archives."""
    files = {"ca": next((os.environ[name] for name in BUNDLES if os.path.isfile(os.environ.get(name, ""))), None)}
    if not official:
        files["sources"] = str(debian.host_sources(scratch))
    return [part for name, file in files.items() if file for part in ("--secret", f"id={name},src={file}")]


def main() -> None:
    """Exits 1 with the reason when something cannot be had."""
    official = "official" in (sys.argv[1:] or [os.environ.get("IMAGES", "")])
    started = time.monotonic()
    try:
        with engine() as found:
            build_images(found, official, lambda line: print(line, flush=True))
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(str(error))
    print(f"all images: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
