"""Temporary folders of the lab. Each is locked by the process that made it, so that a later run knows those of a dead one and
removes them: a lab that is killed cleans up nothing itself.
"""
import fcntl
import os
import pathlib
import shutil
import tempfile
import time

PREFIXES = ("sandpiper-lab.", "sandpiper-selftest.")
UNLOCKED = 3600  # seconds after which a folder whose maker died before it had its name is nobody's


class Folder:
    """A new folder, until remove(); as a context it removes itself."""

    def __init__(self, prefix=PREFIXES[0]):
        made = tempfile.mkdtemp(prefix="." + prefix)
        self.lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)  # not inherited by what we start
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.path = pathlib.Path(made).with_name(os.path.basename(made)[1:])
        os.rename(made, self.path)  # from here on sweep looks at it, and it is locked

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        if self.lock is not None:
            shutil.rmtree(self.path)
            os.close(self.lock)
            self.lock = None


def sweep():
    """Removes what runs left behind whose process is gone. Returns the names."""
    place, gone = pathlib.Path(tempfile.gettempdir()), []
    for prefix in PREFIXES:
        gone += [path.name for path in place.glob(prefix + "*") if nobodys(path) and not shutil.rmtree(path, ignore_errors=True)]
        gone += [path.name for path in place.glob("." + prefix + "*") if old(path) and nobodys(path) and not shutil.rmtree(path, ignore_errors=True)]
    return gone


def old(path):
    try:
        return time.time() - path.stat().st_mtime > UNLOCKED
    except OSError:
        return False


def nobodys(path):
    """Whether it is a folder of this user that no process holds."""
    try:
        if path.is_symlink() or path.stat().st_uid != os.getuid():
            return False
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
