"""Writes newc cpio archives, and reads the .modinfo of kernel modules. Uncompressed: TCG unpacks faster than it inflates."""
import os
import struct


class Archive:
    """One archive. A file's parent folders are made on the way; the first entry of a name wins."""

    def __init__(self, path):
        self.file, self.inode, self.seen = open(path, "wb"), 0, set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._write("TRAILER!!!", 0, b"", (0, 0))
        self._pad(512)
        self.file.close()

    def _pad(self, to):
        self.file.write(b"\0" * (-self.file.tell() % to))

    def _write(self, name, mode, body, device):
        self.inode += 1
        text = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(body), 0, 0, *device, len(text), 0)
        self.file.write(b"070701" + "".join("%08x" % f for f in fields).encode() + text)
        self._pad(4)
        self.file.write(body)
        self._pad(4)

    def entry(self, name, mode, body=b"", device=(0, 0)):
        name = name.strip("/")
        if not name or name in self.seen:
            return
        self.folder(os.path.dirname(name))
        self.seen.add(name)
        self._write(name, mode, body, device)

    def folder(self, name):
        self.entry(name, 0o40755)

    def link(self, name, target):
        self.entry(name, 0o120777, str(target).encode())

    def text(self, name, text):
        self.entry(name, 0o100644, text.encode())

    def copy(self, name, path):
        """A file (only its execute bit is kept) or a whole folder of the host."""
        path = str(path)
        if not os.path.isdir(path):
            with open(path, "rb") as f:
                self.entry(name, 0o100755 if os.stat(path).st_mode & 0o111 else 0o100644, f.read())
            return
        for root, _, files in os.walk(path):
            here = os.path.normpath(os.path.join(name, os.path.relpath(root, path)))
            self.folder(here)
            for f in files:
                self.copy(os.path.join(here, f), os.path.join(root, f))


def modinfo(elf):
    """.modinfo of an ELF module as {key: [values]}."""
    wide, order = elf[4] == 2, "<" if elf[5] == 1 else ">"
    table, = struct.unpack_from(order + ("Q" if wide else "I"), elf, 40 if wide else 32)
    size, count, names_at = struct.unpack_from(order + "HHH", elf, 58 if wide else 46)
    sections = []
    for i in range(count):
        at = table + i * size
        name, = struct.unpack_from(order + "I", elf, at)
        sections.append((name, *struct.unpack_from(order + ("QQ" if wide else "II"), elf, at + (24 if wide else 16))))
    names = elf[sections[names_at][1]:][:sections[names_at][2]]
    found = {}
    for name, offset, length in sections:
        if names[name:names.index(b"\0", name)] != b".modinfo":
            continue
        for pair in elf[offset:offset + length].split(b"\0"):
            if b"=" in pair:
                key, value = pair.decode(errors="replace").split("=", 1)
                found.setdefault(key, []).append(value)
    return found
