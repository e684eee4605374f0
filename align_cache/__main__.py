"""``python -m align_cache``."""

import sys

from align_cache.cli import main

sys.exit(main())
