"""Disk images for boards: one ext4 file system, or two system slots and a data partition. Made anew, sparse, without root."""
import os
import shutil
import struct
import subprocess

import boards
import scratch

MIB = 1 << 20
# Slots of an update, and what survives it. A board mounts the third as /data: machine.Options(data="/dev/vda3").
LAYOUT = [("slot-a", 64), ("slot-b", 64), ("data", 96)]
SIZE = 256  # MiB; a Pi's SD card must be a power of two


def mke2fs():
    found = shutil.which("mke2fs", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if not found:
        raise boards.Trouble("mke2fs is not installed (package e2fsprogs); run: make setup")
    return found


def ext4(path, mib, offset=0, label="data"):
    """An ext4 file system in an image, from an offset in bytes on. It keeps project quotas, as an owner's who bounds modules does."""
    with open(path, "ab") as f:
        f.truncate(max(f.tell(), offset + mib * MIB))
    subprocess.run([mke2fs(), "-q", "-F", "-t", "ext4", "-L", label, "-O", "quota,project", "-E", f"offset={offset},lazy_itable_init=0,quotatype=prjquota", str(path), f"{mib}m"], check=True)


def two_slots(path):
    """Partition table, slots A and B (ext4, empty) and data. Returns {label: (offset, MiB)}."""
    with open(path, "wb") as f:
        f.truncate(SIZE * MIB)
    table, at, places = b"", 1, {}
    for label, mib in LAYOUT:
        table += struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\xff\xff\xff", at * MIB // 512, mib * MIB // 512)
        places[label] = (at * MIB, mib)
        at += mib
    with open(path, "r+b") as f:
        f.seek(446)
        f.write(table.ljust(64, b"\0") + b"\x55\xaa")
    for label, (offset, mib) in places.items():
        ext4(path, mib, offset, label)
    return places


def partition(board, number):
    """A board's name for a partition of its disk."""
    return f"/dev/vda{number}" if board.virtio else f"/dev/mmcblk0p{number}"


class Scratch:
    """An image for one run: one ext4 file system, or two slots and data."""

    def __init__(self, mib=1024, slots=False):  # sparse; a Pi's SD card must be a power of two
        self.mib, self.slots = mib, slots

    def __enter__(self):
        self.folder = scratch.Folder()
        image = self.folder.path / "disk.img"
        try:
            two_slots(image) if self.slots else ext4(image, self.mib)
        except BaseException:
            self.folder.remove()
            raise
        return str(image)

    def __exit__(self, *_):
        self.folder.remove()
