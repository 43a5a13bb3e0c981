"""The wheel: what it installs works in a fresh environment, read-only and for an unprivileged account.

The environment gets copies of the installed libraries instead of downloads, so that no network is needed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import CHECKOUT

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
NOBODY = pwd.getpwnam("nobody")


def run(*command: str | Path, cwd: Path, unprivileged: bool = False) -> str:
    """What a command prints; it must succeed. As `nobody` if asked for and if we are root."""
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    drop = unprivileged and os.geteuid() == 0
    process = subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        user=NOBODY.pw_uid if drop else None,
        group=NOBODY.pw_gid if drop else None,
        extra_groups=[] if drop else None,
    )
    if process.returncode:
        raise AssertionError(f"{command} ended with {process.returncode}:\n{process.stdout}")
    return process.stdout


def interpreter() -> str:
    """A Python of this version that other accounts can run too: ours may lie in a private directory."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    ours = os.path.realpath(sys.executable)
    for candidate in [ours, *(os.path.join(folder, name) for folder in ("/usr/local/bin", "/usr/bin"))]:
        reachable = all(parent.stat().st_mode & 0o001 for parent in Path(candidate).parents)
        if reachable and os.path.exists(candidate):
            return candidate
    return ours


def build(directory: Path) -> Path:
    """The wheel, made from a copy of the sources so that the checkout stays as it is."""
    sources = directory / "sources"
    sources.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(CHECKOUT / name, sources / name)
    for name in ("postoffice", "twisted"):
        ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
        shutil.copytree(CHECKOUT / name, sources / name, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    run(*pip, "--no-build-isolation", "--wheel-dir", directory / "wheels", sources, cwd=directory)
    (wheel,) = (directory / "wheels").iterdir()
    return wheel


def environment(directory: Path, wheel: Path) -> Path:
    """A fresh virtual environment with the wheel and copies of the libraries it needs; its directory."""
    fresh = directory / "fresh"
    run(interpreter(), "-m", "venv", "--without-pip", fresh, cwd=directory)
    # Beyond the libraries themselves only other people's metadata; ours must come from the wheel alone.
    ignore = shutil.ignore_patterns("*postoffice*", "__pycache__", "dropin.cache", "pip", "*.pth")
    (site,) = fresh.glob("lib/python*/site-packages")
    shutil.copytree(sysconfig.get_path("purelib"), site, ignore=ignore, dirs_exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(
        *pip,
        "--python",
        fresh / "bin/python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=directory,
    )
    return fresh


def seal(tree: Path) -> None:
    """Make everything below `tree` readable for everybody and writable for nobody."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444)


def unseal(directory: Path) -> None:
    """Remove a tree that may be sealed."""
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(directory)


class Wheel(SynchronousTestCase):
    """`pip install` of the wheel, and the source tree without any."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wheel-"))
        self.directory.chmod(0o755)
        self.addCleanup(unseal, self.directory)

    def test_installed(self) -> None:
        """twistd lists postoffice and the commands are there, on a disk we cannot write to as well."""
        wheel = build(self.directory)
        names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("twisted/plugins/postoffice_plugin.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertEqual([name for name in names if name.startswith("tests/")], [])
        fresh = environment(self.directory, wheel)
        home = self.directory / "home"
        home.mkdir(mode=0o755)
        if os.geteuid() == 0:
            os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
        (site,) = fresh.glob("lib/python*/site-packages")
        seal(site)
        listing = run(fresh / "bin/python", "-c", TWISTD, "--help", cwd=home, unprivileged=True)
        self.assertRegex(listing, r"(?m)^ +postoffice ")
        self.assertNotIn("Traceback", listing)
        for command in ("postoffice", "mailq", "newaliases", "valias", "vpasswd"):
            self.assertTrue(os.access(fresh / "bin" / command, os.X_OK))
        self.assertIn("0.", run(fresh / "bin/postoffice", "-V", cwd=home, unprivileged=True))
        unlocked = run("chmod", "-R", "u+w", site, cwd=home)
        self.assertEqual(unlocked, "")
        listing = run(fresh / "bin/python", "-c", TWISTD, "--help", cwd=home)
        self.assertRegex(listing, r"(?m)^ +postoffice ")

    def test_source_tree(self) -> None:
        """twistd run in a checkout that is not installed lists postoffice."""
        checkout = self.directory / "checkout"
        for name in ("postoffice", "twisted"):
            ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
            shutil.copytree(CHECKOUT / name, checkout / name, ignore=ignore)
        libraries = self.directory / "libraries"
        ignore = shutil.ignore_patterns("*postoffice*", "__pycache__", "dropin.cache", "*.pth")
        shutil.copytree(sysconfig.get_path("purelib"), libraries, ignore=ignore)
        program = f"import sys; sys.path.append({str(libraries)!r}); {TWISTD}"
        listing = run(sys.executable, "-S", "-c", program, "--help", cwd=checkout)
        self.assertRegex(listing, r"(?m)^ +postoffice ")
