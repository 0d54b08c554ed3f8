"""``python -m tenantry`` and the script ``tenantry``: the command line, or what it lacks."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit status 3 where the extra ``cli`` is not installed."""
    try:
        from tenantry.cli import main as run
    except ImportError as error:
        if "tenantry[cli]" not in str(error):
            raise
        sys.stderr.write(f"{error}\n")
        raise SystemExit(3) from None
    run()


if __name__ == "__main__":
    main()
