"""Build the wheel and look at it the way a user gets it: alone, in fresh environments."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run one command; its failure is ours."""
    subprocess.run([str(word) for word in command], check=True, cwd=cwd)


def environment(folder: Path, *requirements: str) -> Path:
    """A fresh virtual environment; returns its Python."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    if not _by_uv(python, requirements):
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)
    return python


def _by_uv(python: Path, requirements: tuple[str, ...]) -> bool:
    """Whether uv, which is several times faster, is here and could install."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        return False
    command = [str(uv), "pip", "install", "-q", "--python", str(python), *requirements]
    environ = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL, env=environ).returncode == 0


def check_contents(wheel: Path) -> None:
    """The package and its licence are in the wheel, nothing else is."""
    names = zipfile.ZipFile(wheel).namelist()
    stray = [n for n in names if not n.startswith(("tenantry/", "tenantry-"))]
    if stray or "tenantry/py.typed" not in names:
        raise SystemExit(f"unexpected contents of {wheel.name}: {stray or 'no py.typed'}")


def main() -> None:
    """Build, unpack, install without and with the extras, import every public name."""
    with tempfile.TemporaryDirectory(prefix="tenantry-package-") as scratch:
        folder = Path(scratch)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ".")
        (wheel,) = folder.glob("tenantry-*.whl")
        check_contents(wheel)
        for extras, spec in (("none", str(wheel)), ("all", f"{wheel}[all]")):
            python = environment(folder / extras, spec)
            run(python, "-I", ROOT / "tests" / "public_api.py", extras, cwd=folder)
            run(python, "-m", "pip", "check", cwd=folder)
    print("the package is sound")


if __name__ == "__main__":
    main()
