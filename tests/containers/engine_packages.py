"""Programs from Debian's packages, got by the host's apt and unpacked into .venv/containers; nothing is installed.

Called by the engine for Docker and Compose, and by the build for mmdebstrap. Knows nothing of how they are run.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".venv/containers"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Debian 12 has version 1 only. This one is a single static program, which runs on Debian 12.
COMPOSE_RELEASE = "trixie"
COMPOSE = "usr/libexec/docker/cli-plugins/docker-compose"
APT_SECONDS = 300.0


class PackageError(RuntimeError):
    """A program can not be had; the text says what to do."""


@dataclass(frozen=True)
class Programs:
    """Unpacked packages: folders for PATH and LD_LIBRARY_PATH, and that of iptables' extensions where it has one."""

    path: list[Path]
    libraries: list[Path]
    xtables: Path | None
    docker_config: Path

    def environment(self) -> dict[str, str]:
        """This process' environment, with these programs first. LD_LIBRARY_PATH is not among it: see with_libraries."""
        path = os.pathsep.join([*map(str, self.path), os.environ.get("PATH", os.defpath)])
        return {**os.environ, "PATH": path, "DOCKER_CONFIG": str(self.docker_config), "DOCKER_BUILDKIT": "1"}

    def with_libraries(self) -> dict[str, str]:
        """The same for programs that need unpacked libraries: the daemon and iptables."""
        environment = self.environment() | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}
        return environment | ({"XTABLES_LIBDIR": str(self.xtables)} if self.xtables else {})


def engine_programs() -> Programs:
    """Docker's daemon and client, and Compose. Raises PackageError."""
    root = _unpacked("engine", ["docker.io", "iptables"])
    legacy = root / "usr/sbin/xtables-legacy-multi"
    names = root / "portico/bin"
    if legacy.exists() and not names.exists():
        names.mkdir(parents=True)
        for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables"):
            (names / name).symlink_to(legacy)
    compose = _unpacked("compose", ["docker-compose"], COMPOSE_RELEASE) / COMPOSE
    plugin = CACHE / "docker-config/cli-plugins/docker-compose"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(compose)
    libraries = [path for path in sorted(root.glob("**/lib/*-linux-gnu*")) if path.is_dir()]
    xtables = next(iter(root.glob("**/xtables")), None)
    return Programs([names, root / "usr/bin", root / "usr/sbin"], libraries, xtables, plugin.parents[1])


def mmdebstrap() -> Path:
    """The folder for PATH that has mmdebstrap. Raises PackageError."""
    return _unpacked("mmdebstrap", ["mmdebstrap"]) / "usr/bin"


@cache
def mirrors() -> tuple[str, str]:
    """Debian's main archive and its security archive, where the host's apt gets them. Raises PackageError.

    apt knows which of its sources they are once it has their lists, which a new machine has not, or not all of.
    """
    if not shutil.which("apt-get"):
        raise PackageError(
            "The stand-ins are made of Debian's packages, which takes apt. IMAGES=official does without."
        )
    state = CACHE / "apt/mirrors"
    options = _with_own_lists(state)
    _apt(["apt-get", "-qq", *options, "update"])
    listing = _apt(["apt-get", *options, "indextargets", "--format", "$(LABEL) $(SITE)", "Created-By: Packages"])
    shutil.rmtree(state)
    sites = dict(line.rsplit(" ", 1) for line in reversed(listing.splitlines()) if " " in line)
    if not {"Debian", "Debian-Security"} <= sites.keys():
        raise PackageError(f"apt knows {', '.join(sites) or 'no archive'}, not Debian and Debian-Security.")
    return sites["Debian"], sites["Debian-Security"]


def sources(release: str, main: str, security: str) -> str:
    """Lines for apt: a release of Debian with its updates."""
    suites = [(main, release), (main, f"{release}-updates"), (security, f"{release}-security")]
    return "".join(f"deb {site} {suite} main\n" for site, suite in suites)


def _unpacked(name: str, packages: list[str], release: str | None = None) -> Path:
    """A folder with these packages and what they need and the host lacks; from another release, without that."""
    root = CACHE / name
    if root.exists():
        return root
    if os.geteuid() != 0 or not shutil.which("apt-get") or not KEYRING.exists():
        raise PackageError(
            f"Debian's {', '.join(packages)} cannot be had here: that takes root, on Debian with apt. "
            "Start Docker with Compose 2, and where a registry can be reached use IMAGES=official."
        )
    state = CACHE / "apt" / name
    options = _with_own_lists(state)
    if release:
        listing = state / "sources.list"
        listing.write_text(f"deb [signed-by={KEYRING}] {mirrors()[0]} {release} main\n")
        options += ["-o", f"Dir::Etc::SourceList={listing}", "-o", "Dir::Etc::SourceParts=-"]
    apt = ["apt-get", "-qq", *options]
    _apt([*apt, "-o", "APT::Update::Error-Mode=any", "update"])
    if release:
        _apt([*apt, "download", *packages], state / "archives")
    else:
        _apt([*apt, "install", "--download-only", "--yes", "--no-install-recommends", *packages])
    partial = root.with_name(f"{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for package in sorted((state / "archives").glob("*.deb")):
        _apt(["dpkg-deb", "-x", str(package), str(partial)])
    partial.rename(root)
    shutil.rmtree(state)
    return root


def _with_own_lists(state: Path) -> list[str]:
    """Options for lists and archives in a folder of their own, so that the host's apt finds everything as it was. As
    root, since the user _apt may not write here.
    """
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    options = [f"Dir::State::lists={state}/lists", f"Dir::Cache={state}", f"Dir::Cache::archives={state}/archives"]
    options += ["APT::Sandbox::User=root", "Acquire::Languages=none"]
    return [part for option in options for part in ("-o", option)]


def _apt(command: list[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=APT_SECONDS)
    except subprocess.TimeoutExpired:
        raise PackageError(
            f"`{' '.join(command)}` took longer than {APT_SECONDS:.0f} s: is a mirror reachable?"
        ) from None
    if done.returncode != 0:
        raise PackageError(f"`{' '.join(command)}` failed: is a mirror of Debian reachable?\n{done.stderr[-4000:]}")
    return done.stdout
