"""Imported first: lets ``python -m pytest`` test the installed fastloop when ``./fastloop`` has not been built.

``python -m pytest`` puts the current folder first on ``sys.path``, so that the checkout's package would hide an
installed one. A checkout that has been built (``pip install -e .``, ``python setup.py build_ext --inplace``) is left
alone, unless ``FASTLOOP_TEST_INSTALLED=1`` asks for the installed one.
"""

import importlib.machinery
import os
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def built(folder: str) -> bool:
    names = [f"_core{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    return any(os.path.exists(os.path.join(folder, "fastloop", name)) for name in names)


def is_checkout(folder: str) -> bool:
    return os.path.abspath(folder or os.curdir) == HERE


if "fastloop" not in sys.modules and (os.environ.get("FASTLOOP_TEST_INSTALLED") == "1" or not built(HERE)):
    others = [folder for folder in sys.path if not is_checkout(folder)]
    if any(built(folder) for folder in others):
        sys.path[:] = others
