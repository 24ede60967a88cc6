"""Translates the paths of a program in a sandbox without a mount namespace: /tmp and similar directories are its scratch directory,
a few files of /etc and /proc are synthetic, what Landlock lets it read exists, and nothing else of the host does.

This confines nothing. Whatever is answered here, the kernel then checks the call against the program's Landlock domain, which also
holds a program that evades these answers."""
import errno
import os

ENOENT, EACCES = errno.ENOENT, errno.EACCES


class View:
    def __init__(self, plan, landlock, scratch, listings):
        """scratch and listings are the paths of a run's directory, and of those that the lane makes for it to list (listings.py)."""
        self.listings = os.fsencode(listings)
        self.scratch = os.fsencode(scratch)
        self.inside = self.scratch + b"/"
        self.names = [os.fsencode(path) for path in plan["scratch_names"]]
        self.shown = self.names[0]      # the path of scratch as programs see it
        self.files = {os.fsencode(path): text.replace("$UID", str(os.getuid())).replace("$GID", str(os.getgid())).encode()
                      for path, text in plan["files"].items()}
        self.left = {os.fsencode(path) for path in plan["left"]}
        self.own = {os.fsencode(rule["path"].rpartition("/")[2]): rule["kind"] for rule in landlock["own_proc"]}
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
        # Directories that exist for programs, and that Landlock does not let them list.
        self.closed = {path for path in self.parents if not (path + b"/").startswith(self.plain)}.difference(self.names)
        self.known = {*self.left, *self.files, *self.names, *self.parents, *(b"/proc/self/" + name for name in self.own)}
        # A relative path is looked at only when it begins with one of these, since from a closed directory it may lead to one of the above.
        self.tops = (b".", *{os.path.basename(path) for path in self.known if os.path.dirname(path) in self.closed and path != b"/"})

    def look(self, path, base, makes=False):
        """Return what a path of a program means: None when the kernel may resolve it as it is, bytes for the path to use instead, or an
        errno. base returns the directory that a relative path starts from. makes says that the call would make an entry there."""
        if path.startswith(self.plain) and b".." not in path:
            return None
        if path[:1] != b"/":
            if b".." not in path and not path.startswith(self.tops):
                return None
            real = base()
            start = self.show(real)
            whole = self.clean(start + b"/" + path)
            meant = self._absolute(whole, makes)
            if meant is None and self._within(real, self.listings):
                return whole   # the kernel would look in the listing
            if meant is None and b".." in path and self._within(start, self.shown) and not self._within(whole, self.shown):
                return whole   # .. leads out of scratch, and from the real scratch it would lead elsewhere
            return meant if not isinstance(meant, bytes) or b".." in path or not self._within(start, self.shown) else None
        return self._absolute(self.clean(path), makes)

    def listed(self, path, base):
        """Return the path of a closed directory that a program opens; None for any other file."""
        if path[:1] == b"/":
            if path.startswith(self.plain):
                return None
            whole = self.clean(path)
        elif path.startswith(self.tops):
            whole = self.clean(self.show(base()) + b"/" + path)
        else:
            return None
        return whole if whole in self.closed else None

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
        parts = path.split(b"/")   # "", "proc", a pid, an entry of its directory
        if parts[2] in (b"self", b"thread-self") or parts[2].isdigit():
            if len(parts) == 3 or parts[3] in self.own or parts[3] in (b"cwd", b"exe", b"root", b"task", b"ns", b"mem"):
                return None
        return ENOENT

    def file_of_process(self, path):
        """Split the path of a file that a program may read of its own processes: its directory's name in /proc, and its name."""
        parts = path.split(b"/")
        if len(parts) == 4 and (parts[2] == b"self" or parts[2].isdigit()) and self.own.get(parts[3]) == "file":
            return parts[2], parts[3]
        return None

    def _known(self, path):
        return path in self.parents or path.startswith(self.plain) or path + b"/" in self.plain

    def whole(self, path, base):
        """Return the absolute path that a program names. base returns the directory that a relative path starts from."""
        return self.clean(path if path[:1] == b"/" else base() + b"/" + path)

    def in_scratch(self, path):
        """Whether a path of the host is that of scratch or of something in it."""
        return self._within(path, self.scratch)

    def show(self, path):
        """Return the path of a directory as programs see it."""
        if path == self.scratch:
            return self.shown
        if path.startswith(self.inside):
            return self.shown + path[len(self.scratch):]
        if self._within(path, self.listings):
            return path[len(self.listings):] or b"/"
        return path

    @staticmethod
    def _within(path, directory):
        return path == directory or path.startswith(directory + b"/")

    @staticmethod
    def clean(path):
        path = os.path.normpath(path)
        return path[1:] if path.startswith(b"//") else path
