"""Debian's node and Python for a board, as an ext4 image that the guest mounts at /usr: what the demo's SDK modules run on."""
import os
import pathlib
import shutil
import subprocess

import apt
import boards
import disk
import kernels

PACKAGES = ["nodejs", "python3"]
DROP = ["share/doc", "share/man", "share/locale", "share/nodejs/npm", "share/lintian", "include"]

# Where a program of /usr looks for its loader and libraries, on a root that is not merged with /usr.
MOUNT = """mount -t ext4 -o ro /dev/vdb /usr
for f in /usr/lib/ld-linux* /usr/lib/*-linux-*; do [ -e /lib/${f##*/} ] || ln -s $f /lib/${f##*/}; done
"""


def image(board):
    """Path of the image in the cache; made once for the packages that the signed index offers now."""
    out = boards.CACHE / "userland" / f"{board.deb}.img"
    if out.exists():
        return out
    root = apt.Apt(board.deb, kernels.say)
    if os.environ.get("LAB_OFFLINE") != "1":
        root.update()
    done = root._run("apt-get", "-qq", "--print-uris", "--no-install-recommends", "install", *PACKAGES)
    names = [line.split()[1].partition("_")[0] for line in done.stdout.splitlines() if line.startswith("'")]
    if done.returncode or not names:
        raise boards.Trouble(f"{board.deb}: {' '.join(PACKAGES)} cannot be had: {done.stderr.strip()[:200]}", 3)
    tree = out.parent / board.deb
    shutil.rmtree(tree, ignore_errors=True)
    try:
        for name in names:
            apt.unpack(root.get(name), tree)
    except LookupError as err:
        raise boards.Trouble(str(err), 3) from None
    usr = tree / "usr"
    merge(tree, usr)
    for name in DROP:
        shutil.rmtree(usr / name, ignore_errors=True)
    size = sum(p.lstat().st_size for p in usr.rglob("*")) // disk.MIB
    fresh = out.with_suffix(f".{os.getpid()}")
    try:
        subprocess.run([disk.mke2fs(), "-q", "-F", "-t", "ext4", "-d", str(usr), str(fresh), f"{size * 5 // 4 + 32}m"], check=True)
        os.replace(fresh, out)
    finally:
        fresh.unlink(missing_ok=True)
        shutil.rmtree(tree)
    return out


def merge(tree, usr):
    """Debian's own packages still bring some files in /lib and /bin; on its systems these are links into /usr."""
    for name in ("lib", "bin", "sbin"):
        for root, _, files in os.walk(tree / name):
            there = usr / name / pathlib.Path(root).relative_to(tree / name)
            there.mkdir(parents=True, exist_ok=True)
            for f in files:
                if not (there / f).exists():
                    shutil.move(os.path.join(root, f), there / f)
