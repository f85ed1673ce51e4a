"""See to it that Open3D loads: find the system libraries it links that this machine lacks, and provide them.

    python envs/system_libraries.py          (part of `make setup`; needs the standard library only)

As root, or with a sudo that asks nothing, the missing Debian packages are installed. Without such rights their files are
laid beside Open3D's own library, where its loader looks first ($ORIGIN), so no environment variable is needed afterwards:
libusb from PyPI's libusb-package, the rest from Debian packages that are downloaded and unpacked, not installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libudev.so.1": "libudev1",
    "libidn2.so.0": "libidn2-0",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
}
"""Libraries that Open3D's wheel links and does not bring, with the Debian packages that hold them."""

LIBUSB_WHEEL = "libusb-package==1.0.30.0"


def open3d_folder() -> Path:
    """The folder of the installed Open3D package (found without importing it)."""
    spec = importlib.util.find_spec("open3d")
    if spec is None or spec.origin is None:
        sys.exit("Open3D is not installed in this environment")
    return Path(spec.origin).parent


def load_error() -> str:
    """What the loader says about Open3D in a fresh process; empty when it loads."""
    check = subprocess.run([sys.executable, "-c", "import open3d"], capture_output=True, text=True, check=False)
    return "" if check.returncode == 0 else check.stderr.strip().splitlines()[-1]


def missing(folder: Path) -> list[str]:
    """Names of libraries that Open3D's library needs, itself or through others, and that are not found."""
    found: list[str] = []
    for library in sorted(folder.glob("libOpen3D.so*")):
        paths = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
        listing = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False, env=paths)
        found += re.findall(r"^\s*(\S+) => not found", listing.stdout, re.MULTILINE)
    return list(dict.fromkeys(found))


def run(*command: str, cwd: Path | None = None) -> bool:
    """Run a command with its output in the log; True when it succeeds."""
    print("+", *command, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(command, cwd=cwd, env=environment, check=False, stdin=subprocess.DEVNULL).returncode == 0
    except OSError as error:
        print(error)
        return False


def install(names: list[str]) -> bool:
    """Install the Debian packages of ``names`` as root or by sudo without a question; False when that cannot be."""
    if not shutil.which("apt-get"):
        return False
    rights: list[str] = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if rights and not (shutil.which("sudo") and run("sudo", "-n", "true")):
        return False
    wanted = sorted({PACKAGES[n] for n in names if n in PACKAGES})
    apt = [*rights, "apt-get", "install", "-y", "--no-install-recommends", *wanted]
    return bool(wanted) and (run(*apt) or (run(*rights, "apt-get", "update") and run(*apt)))


def from_wheel(folder: Path) -> None:
    """Put the libusb of PyPI's libusb-package beside Open3D's library."""
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        if not run(sys.executable, "-m", "pip", "download", "--no-deps", "-d", temporary, LIBUSB_WHEEL):
            return
        for wheel in here.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith("libusb-1.0.so"):
                        (folder / "libusb-1.0.so.0").write_bytes(archive.read(name))


def dependencies(packages: list[str], own: list[str]) -> list[str]:
    """Debian packages of graphics and text libraries that ``packages`` depend on (no libc, no drivers)."""
    no = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    listing = subprocess.run(
        ["apt-cache", *own, "depends", "--recurse", *no, *packages], capture_output=True, text=True, check=False
    )
    wanted = re.compile(r"lib(x11|xcb|xau|xdmcp|gl|egl|bsd|md|unistring)[\w.+-]*")
    names = {name for name in listing.stdout.split() if wanted.fullmatch(name) and "mesa" not in name}
    return sorted(names - set(packages))


def from_debian(folder: Path, names: list[str]) -> None:
    """Download the Debian packages of ``names`` with what they depend on, unpack them, copy their libraries beside Open3D's."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        for part in ("lists/partial", "cache/archives/partial"):
            (here / part).mkdir(parents=True)
        own = ["-o", f"Dir::Cache={here / 'cache'}", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
        wanted = sorted({PACKAGES[n] for n in names if n in PACKAGES})
        if not run("apt-get", *own, "download", *wanted, cwd=here):
            own += ["-o", f"Dir::State::Lists={here / 'lists'}"]
            run("apt-get", *own, "update")
            run("apt-get", *own, "download", *wanted, cwd=here)
        for name in dependencies(wanted, own):
            run("apt-get", *own, "download", name, cwd=here)
        for package in here.glob("*.deb"):
            run("dpkg-deb", "-x", str(package), str(here / "unpacked"))
        for library in sorted((here / "unpacked").rglob("*.so.*")):
            if library.is_file() and not (folder / library.name).exists():
                shutil.copy(library, folder / library.name)


def main() -> None:
    """Provide what is missing, then prove that Open3D loads; exit 2 with the way out when it does not."""
    if not load_error():
        return
    folder = open3d_folder()
    names = missing(folder)
    print("missing:", *names)
    if not install(names):
        if "libusb-1.0.so.0" in names:
            from_wheel(folder)
        names = missing(folder)
        if names:
            from_debian(folder, names)
    fault = load_error()
    if fault:
        wanted = " ".join(sorted({PACKAGES.get(n, n) for n in missing(folder)}))
        print(f"Open3D does not load: {fault}\n  fix:     as root: apt-get install {wanted}, then make setup again")
        sys.exit(2)


if __name__ == "__main__":
    main()
