# Reaches the child processes of ``python -m fastloop``, which puts this folder on PYTHONPATH and sets
# FASTLOOP_LAUNCHER. Without that variable it does nothing. Every Python that is started as a child imports this file,
# whatever its version, so it is written for all of them and costs next to nothing until asyncio is imported.
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))


class _AfterAsyncio(object):
    """Finds asyncio as the other finders do, and installs fastloop once it has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "asyncio":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            spec = find_spec and find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(object):
    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _install()


def _install():
    if "fastloop" not in sys.modules:
        try:
            _load_from(os.path.dirname(_here))
        except ImportError:
            # Built for another Python than this one, which may still have a fastloop of its own.
            for name in [n for n in sys.modules if n.partition(".")[0] == "fastloop"]:
                del sys.modules[name]
    try:
        import fastloop
    except ImportError:
        return  # this child stays on asyncio's loop
    fastloop.install()


def _load_from(package):
    # The launcher's own copy: the child's sys.path need not hold it.
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(
        "fastloop", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    module = sys.modules["fastloop"] = module_from_spec(spec)
    spec.loader.exec_module(module)


def _chain():
    """Run the sitecustomize that would have been found had this one not been here."""
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or os.curdir) != _here]
    this = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as problem:
        if getattr(problem, "name", "sitecustomize") != "sitecustomize":
            raise
    finally:
        if this is not None:
            sys.modules.setdefault("sitecustomize", this)


if os.environ.get("FASTLOOP_LAUNCHER") and sys.version_info >= (3, 11):
    sys.meta_path.insert(0, _AfterAsyncio())
_chain()
