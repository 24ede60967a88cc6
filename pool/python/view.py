"""What paths mean to a program where it has no file system of its own: /tmp and its kin are its scratch directory, a few
files of /etc are made up, what Landlock lets it read is there, and all else of the host is not.

This is for the looks of it, never for the walls: whatever is answered here, the kernel then holds the program to its Landlock
domain, and a program that goes around these answers meets just that."""
import errno
import os

ENOENT, EACCES = errno.ENOENT, errno.EACCES
CWD = -100   # AT_FDCWD


class View:
    def __init__(self, plan, landlock, scratch):
        self.scratch = os.fsencode(scratch)
        self.inside = self.scratch + b"/"
        self.names = [os.fsencode(path) for path in plan["scratch_names"]]
        self.shown = self.names[0]      # what a program is told of where its scratch lies
        self.files = {os.fsencode(path): text.replace("$UID", str(os.getuid())).replace("$GID", str(os.getgid())).encode()
                      for path, text in plan["files"].items()}
        self.left = {os.fsencode(path) for path in plan["left"]}
        self.own = {os.fsencode(rule["path"].rpartition("/")[2]) for rule in landlock["own_proc"]}
        beneath = [path + b"/" for path in self.left]
        for rule in landlock["rules"]:
            path = os.fsencode(rule["path"])
            self.left.add(path)
            if rule["kind"] == "dir":
                beneath.append(path + b"/")
        self.plain = (self.inside, *beneath)
        self.parents = {b"/", *(os.fsencode(path) for path in plan["parents"])}
        for path in [*self.left, *self.files, *self.names]:
            while path != b"/":
                path = os.path.dirname(path)
                self.parents.add(path)
        # Relative paths are looked at when they may lead from / to one of the above.
        self.tops = tuple({path.split(b"/")[1] for path in [*self.names, *self.files, b"/proc", b"/sys", b"/dev", b"/etc"]})

    def look(self, path, base, makes=False):
        """Return what a path that a program names means: None for what the kernel says of it, another path, or an errno. base
        gives the directory that a relative one starts from."""
        if path.startswith(self.plain) and b".." not in path:
            return None
        if path[:1] != b"/":
            if b".." not in path and not path.startswith(self.tops):
                return None
            start = self.show(base())
            whole = self.clean(start + b"/" + path)
            meant = self._absolute(whole, makes)
            if meant is None and b".." in path and self._within(start, self.shown) and not self._within(whole, self.shown):
                return whole   # up and out of what is scratch in truth, and something else to the program
            return meant if not isinstance(meant, bytes) or b".." in path or not self._within(start, self.shown) else None
        return self._absolute(self.clean(path), makes)

    def _absolute(self, path, makes):
        if path in self.left or path.startswith(self.plain):
            return None
        for name in self.names:
            if self._within(path, name):
                return self.scratch + path[len(name):] if path != self.scratch else None
        if path in self.files:
            return path
        if path in self.parents:
            return None
        if path.startswith(b"/proc/"):
            return self._proc(path)
        if makes and self._known(os.path.dirname(path)):
            return EACCES
        return ENOENT

    def _proc(self, path):
        parts = path.split(b"/")   # "", "proc", a process, what of it
        if parts[2] in (b"self", b"thread-self") or parts[2].isdigit():
            if len(parts) == 3 or parts[3] in self.own or parts[3] in (b"cwd", b"exe", b"root", b"task", b"ns", b"mem"):
                return None
        return ENOENT

    def _known(self, path):
        return path in self.parents or path.startswith(self.plain) or path + b"/" in self.plain

    def show(self, path):
        """What a program is told of a directory that it is in."""
        if path == self.scratch:
            return self.shown
        if path.startswith(self.inside):
            return self.shown + path[len(self.scratch):]
        return path

    @staticmethod
    def _within(path, directory):
        return path == directory or path.startswith(directory + b"/")

    @staticmethod
    def clean(path):
        path = os.path.normpath(path)
        return path[1:] if path.startswith(b"//") else path
