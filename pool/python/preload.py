"""Imports in the template, which all its workers then have for free, and the import path of installed packages."""
import os
import sys
from _frozen_importlib_external import PathFinder   # importlib.machinery would load further modules

import _sandbox_confine as confine
import _sandbox_lane as lane
import _sandbox_root as root


def preload(plan):
    if not plan["preload"]:
        return
    leave = _enter_room(plan)
    _import(plan["preload"], plan["packages"])
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None   # a preloaded module may have called gettempdir, and programs have another directory
    leave()


def _enter_room(plan):
    """Make HOME and TMPDIR writable during the imports, since some modules keep a cache there. Returns a function that undoes it."""
    path = plan["scratch"]["path"]
    if plan["world"] == "namespaces":
        root.mount_scratch(path, "size=64m,mode=700")
        return lambda: root.unmount(path)
    old = {name: os.environ[name] for name in ("HOME", "TMPDIR")}
    room = f"{path}/template-{os.getpid()}"
    os.mkdir(room, 0o700)
    os.environ["HOME"] = os.environ["TMPDIR"] = room

    def leave():
        os.environ.update(old)
        lane.remove(room)

    return leave


def _import(names, packages):
    """Import modules from the operator's interpreter, never from installed packages. A name is left out when its import would load a
    module that an installed package provides, too: programs would get the operator's version of that one."""
    installed = set()
    if packages:
        # Only names that the interpreter can find as well: no import here loads the others.
        installed = {name for name in (entry.split(".")[0] for entry in os.listdir(packages))
                     if name.isidentifier() and PathFinder.find_spec(name)}
    for name in names:
        if installed and _brings(name, installed):
            continue
        try:
            __import__(name)
        except BaseException as e:
            raise confine.ConfineError(f"preload {name}", f"{type(e).__name__}: {e}") from None


def _brings(name, installed):
    """Whether importing name loads one of the installed modules. Tried in a fork, since an import cannot be undone."""
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException:
            pass   # the real import will report it
        os._exit(any(module.partition(".")[0] in installed for module in sys.modules))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def add_packages(roots, packages):
    """Let programs, and Pythons that they start, import installed packages. In programs these come after the standard library and before
    the operator's packages; in Pythons that they start, PYTHONPATH puts them first. Their directory is no site directory, so no .pth
    files in it run."""
    if packages:
        site = [i for i, path in enumerate(sys.path) if path.endswith(("/site-packages", "/dist-packages"))]
        sys.path.insert(min(site, default=len(sys.path)), packages)
        roots = [*roots, packages]
        PathFinder.find_spec("_sandbox_absent")   # has the finders list the directories once, before all forks
    if roots:
        os.environ["PYTHONPATH"] = ":".join(roots)
