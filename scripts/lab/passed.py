"""What passed before and is the same again, as `go test` remembers it: package, test binary and its data, kernel, guest, board.

Only whole passes are remembered. The smoke test of a board is never taken from here, so every run boots every board.
"""
import hashlib
import json
import os
import pathlib

import boards
import initramfs

KEEP = 400  # results; the oldest go
FOLDER = boards.CACHE / "passed"
GUEST = ["guest/init", "initramfs.py", "machine.py", "suite.py", "boards.json"]


def key(board, job, settings):
    """What a result depends on, as a name."""
    digest = hashlib.sha256(json.dumps([board.name, board.kernel, job.name, settings]).encode())
    paths = [boards.HERE / n for n in GUEST] + [initramfs.base(board)]
    for place in job.files.values():
        place = pathlib.Path(place)
        paths += sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    for path in paths:
        digest.update(f"\n{path.name} {path.stat().st_size}\n".encode())
        with open(path, "rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()


def look(name):
    """The remembered outcome as a dict, or None. LAB_FRESH=1 remembers nothing."""
    if os.environ.get("LAB_FRESH") == "1":
        return None
    try:
        return json.loads((FOLDER / name).read_text())
    except (OSError, ValueError):
        return None


def note(name, outcome):
    """Remembers a pass."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    fresh = FOLDER / f".{os.getpid()}"
    fresh.write_text(json.dumps(outcome))
    os.replace(fresh, FOLDER / name)
    for old in sorted(FOLDER.iterdir(), key=lambda p: p.stat().st_mtime)[:-KEEP]:
        old.unlink(missing_ok=True)
