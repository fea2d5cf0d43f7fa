"""Every test here is watched, as those in tests/loop are."""

import os
import sys

_root = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conftest.py")
for _module in list(sys.modules.values()):
    if getattr(_module, "__file__", None) == _root and "net" not in _module.WATCHED:
        _module.WATCHED += ("net",)
