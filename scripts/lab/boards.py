"""The boards: what boards.json says of each, and where its fetched files are."""
import json
import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("LAB_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sandpiper-lab").absolute()
RESULTS = pathlib.Path(os.environ.get("LAB_RESULTS") or ROOT / "build" / "lab").absolute()


class Trouble(Exception):
    """A line for the user: what, which, why, what to do. code is the exit code of the command."""

    def __init__(self, text, code=2):
        super().__init__(text)
        self.code = code


class Board:
    """One board of boards.json. Its fields are attributes: deb, meta, karch, cross, target, go, qemu, virtio…"""

    dtb = dtb_fix = None

    def __init__(self, name, fields):
        self.name = name
        self.__dict__.update(fields)
        self.dir = CACHE / "board" / name

    @property
    def kernel(self):
        """Version of the fetched kernel, or None."""
        try:
            return (self.dir / "kver").read_text()
        except FileNotFoundError:
            return None

    def need(self):
        """The board itself, if it is fetched."""
        if not self.kernel or not (self.dir / "e2fs/e2fsck").exists():  # it came last: an older cache has none
            raise Trouble(f"board {self.name} is not fetched, or by an older lab; run: make lab-fetch LAB_BOARDS={self.name}", 3)
        return self


def all_boards():
    """Every board by name; "base" takes over another's fields."""
    raw = json.loads((HERE / "boards.json").read_text())
    return {name: Board(name, {**raw.get(f.get("base"), {}), **f}) for name, f in raw.items()}


def board(name):
    known = all_boards()
    if name not in known:
        raise Trouble(f"no board {name}; there are: {' '.join(known)}")
    return known[name]
