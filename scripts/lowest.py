"""Print the lowest version of everything that the package asks for, as constraints for an installer.

python scripts/lowest.py > lowest.txt && pip install -c lowest.txt ".[all]"
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for extra, requirements in project["optional-dependencies"].items():
    for requirement in requirements if extra != "all" else ():
        name, version = re.fullmatch(r"([a-z-]+)(?:\[[a-z]+\])?>=([0-9.]+)", requirement).groups()
        print(f"{name}=={version}")
