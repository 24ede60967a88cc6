"""What the template imports ahead, for all that run later."""
import os
import sys
from _frozen_importlib_external import PathFinder   # importlib.machinery would bring more along

import _sandbox_confine as confine
import _sandbox_lane as lane


def preload(plan):
    if not plan["preload"]:
        return
    leave = _enter_room(plan)
    _import(plan["preload"], plan["packages"])
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None   # it may have looked, and programs have another one
    leave()


def _enter_room(plan):
    """Make HOME and TMPDIR a place to write to, as modules expect that keep a cache. Returns what removes it."""
    path = plan["scratch"]["path"]
    if plan["world"] == "namespaces":
        confine.mount_scratch(path, "size=64m,mode=700")
        return lambda: confine.unmount(path)
    old = {name: os.environ[name] for name in ("HOME", "TMPDIR")}
    room = f"{path}/template-{os.getpid()}"
    os.mkdir(room, 0o700)
    os.environ["HOME"] = os.environ["TMPDIR"] = room

    def leave():
        os.environ.update(old)
        lane.empty(room, sys.maxsize)
        os.rmdir(room)

    return leave


def _import(names, packages):
    """Import from the operator's interpreter, never from what was installed. What would bring a module that an installed
    package provides too is left out, or programs would find the operator's version of it."""
    installed = set()
    if packages:
        # What only the installed packages have cannot come from anywhere else.
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
    """Whether an import has such modules loaded, found out in a fork, since no import can be undone."""
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException:
            pass   # the import itself will tell
        os._exit(any(module.partition(".")[0] in installed for module in sys.modules))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def add_packages(roots, packages):
    """Let programs, and Pythons that they start, import what was installed: behind the standard library and before the
    operator's packages. It is no site directory: its .pth files do not run."""
    if packages:
        site = [i for i, path in enumerate(sys.path) if path.endswith(("/site-packages", "/dist-packages"))]
        sys.path.insert(min(site, default=len(sys.path)), packages)
        roots = [*roots, packages]
        PathFinder.find_spec("_sandbox_absent")   # lists the directories for all who follow
    if roots:
        os.environ["PYTHONPATH"] = ":".join(roots)
