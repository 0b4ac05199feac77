"""``python -m trio_smtp`` is ``trio-smtp``."""

from ._cli.main import main

if __name__ == "__main__":
    main()
