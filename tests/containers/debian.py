"""The image that all stand-ins are built on: Debian 12 from its own archive, small, imported into an engine.

Called by the build. Knows nothing of what is built on it.
"""

import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

import engine_packages
from engine import Engine, EngineError

NAME = "portico-standin/debian:bookworm"
RELEASE = "bookworm"
# In the new root: no manuals and translations, now and from later packages; nothing of this machine.
TRIM = """cd "$1"
find usr/share/doc usr/share/man usr/share/locale -type f ! -name copyright -delete
printf 'path-exclude=/usr/share/%s/*\\n' doc locale man > etc/dpkg/dpkg.cfg.d/small
echo 'path-include=/usr/share/doc/*/copyright' >> etc/dpkg/dpkg.cfg.d/small
: > etc/resolv.conf
: > etc/hostname
rm -rf var/log/*.log var/log/apt/* var/cache/debconf/*-old
: > etc/apt/sources.list
"""
# A container is thrown away when a machine fails, so nothing need be synchronised to the disk.
OPTIONS = ["--variant=minbase", "--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"']
LABEL = "debian-" + sha256(repr((TRIM, OPTIONS)).encode()).hexdigest()[:12]
SECONDS = 600.0
# Thousands of small files are written: in memory, that takes half the time.
MEMORY = Path("/dev/shm")
NEEDED = 1 << 30


def import_debian(engine: Engine) -> None:
    """Makes the image from the newest packages. Raises PackageError where that cannot be done, or EngineError."""
    main, security = engine_packages.mirrors()
    programs = engine_packages.mmdebstrap()
    environment = {**engine.environment, "PATH": f"{programs}{os.pathsep}{engine.environment['PATH']}"}
    command = ["mmdebstrap", "--quiet", "--mode=root", *OPTIONS, f"--customize-hook={TRIM}", RELEASE]
    with tempfile.TemporaryDirectory(prefix="portico-debian-", dir=_fast_folder()) as scratch:
        Path(scratch).chmod(0o755)  # apt downloads as a user of its own
        archive = Path(scratch) / "root.tar"
        environment |= {"TMPDIR": scratch}
        done = subprocess.run(
            [*command, str(archive), "-"],
            env=environment,
            input=engine_packages.sources(RELEASE, main, security),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode != 0:
            raise EngineError(
                f"Debian could not be made with mmdebstrap: is a mirror reachable?\n{done.stderr[-4000:]}"
            )
        engine.docker("import", "--change", f"LABEL portico.standin={LABEL}", str(archive), NAME)


def _fast_folder() -> Path | None:
    """None for the default."""
    return MEMORY if MEMORY.exists() and shutil.disk_usage(MEMORY).free > NEEDED else None


def host_sources(folder: Path) -> Path:
    """A file with the archives that the host's apt uses, for apt inside builds: none stays in an image."""
    file = folder / "sources.list"
    file.write_text(engine_packages.sources(RELEASE, *engine_packages.mirrors()))
    return file
