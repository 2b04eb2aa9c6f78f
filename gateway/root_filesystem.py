"""Gathers what the gateway's image needs to run, and nothing else, in one folder: run while the image is built.

Python, the shared libraries that it, Envoy and the packages are linked with, what connections need (names,
certificates), and bash, in which the health check is written. That is half the size of the image it is taken from, and
little that ever needs patches.
"""

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

PACKAGES = Path("/packages")
STDLIB = Path(sysconfig.get_path("stdlib"))
# Tools and windows.
UNUSED = ("site-packages", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo")
FILES = ("/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/ssl", "/usr/lib/ssl", "/usr/share/ca-certificates")
USER = 10001


def gather(root: Path) -> None:
    """Makes the root file system in a new folder."""
    python = Path(sys.executable).resolve()
    for name in ("bin", "lib", "lib64", "sbin"):  # links into /usr
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    shutil.copytree(PACKAGES, inside(root, PACKAGES), symlinks=True)
    shutil.copytree(STDLIB, inside(root, STDLIB), symlinks=True, ignore=shutil.ignore_patterns(*UNUSED, "config-*"))
    compileall.compile_dir(inside(root, STDLIB), quiet=1, stripdir=str(root))  # the official image has no bytecode
    for path in map(Path, FILES):
        if path.is_dir():
            shutil.copytree(path, inside(root, path), symlinks=True)
        else:
            shutil.copy(path, inside(root, path))
    binaries = [
        file for home in (PACKAGES, STDLIB) for file in home.rglob("*") if ".so" in file.name or file.name == "envoy"
    ]
    libraries = Path(sysconfig.get_config_var("LIBDIR")).rglob(f"libpython{sysconfig.get_python_version()}.so*")
    library = {each.resolve() for each in libraries}
    for file in {python, Path("/bin/bash"), *library, *linked([python, "/bin/bash", *binaries])}:
        if not file.is_relative_to(PACKAGES):
            shutil.copy(file, inside(root, file))
    (root / "usr/bin/sh").symlink_to("bash")
    (root / "usr/bin/python").symlink_to(python)
    (root / "etc/passwd").write_text(f"portico:x:{USER}:{USER}::/:/usr/sbin/nologin\n")
    (root / "etc/group").write_text(f"portico:x:{USER}:\n")
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    (root / "stage").mkdir()
    shutil.chown(root / "stage", USER, USER)  # a new volume takes its owner from the folder that it is mounted on


def linked(programs: Iterable[Path | str]) -> set[Path]:
    """The shared libraries, loader included, that programs are linked with."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return {Path(found) for found in re.findall(r"(/\S+\.so\S*) \(0x", told)}


def inside(root: Path, path: Path) -> Path:
    """Where a path is in the new root, in a folder that exists; the folders' links are followed, as at run time."""
    place = root / path.parent.resolve().relative_to("/") / path.name
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
