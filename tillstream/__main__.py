"""`python -m tillstream`, which is `till`."""

from __future__ import annotations

from tillstream.cli import main

if __name__ == "__main__":
    main()
