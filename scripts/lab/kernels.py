"""Fetches Debian's kernels for the boards, once. What is there is used; `refresh` looks for newer ones.

The result of a board is CACHE/board/NAME: kver, vmlinuz, modules, extra (fixture modules), config, busybox, bash, e2fs, dtb.
A kernel that the signed index does not offer makes its board UNAVAILABLE, said loudly, and leaves the others alone.
"""
import fcntl
import os
import shutil
import subprocess
import time

import apt
import boards
import fixtures

# mke2fs, e2fsck and their libraries, the C library too: a board bounds a module's directory by a file with a file system
E2FS = ["e2fsprogs", "libext2fs2", "libcom-err2", "libblkid1", "libuuid1", "libc6"]
E2FS_FILES = ["e2fsck", "mke2fs", "libext2fs.so.2", "libcom_err.so.2", "libblkid.so.1", "libuuid.so.1", "libe2p.so.2", "libc.so.6"]
HOST_TOOLS = {"dpkg-deb": "dpkg", "make": "make", "xz": "xz-utils", "fdtput": "device-tree-compiler"}


def say(text):
    print("lab:", text, flush=True)


def complete(board):
    extra = board.dir / "extra" / (".ok-" + fixtures.recipe())
    return bool(board.kernel) and extra.exists() and all((board.dir / name).exists() for name in ("vmlinuz", "e2fs/e2fsck"))


def fetch(names, refresh):
    """Brings every named board. Returns {board: why} of those that are unavailable."""
    boards.CACHE.mkdir(parents=True, exist_ok=True)
    missing = {}
    with open(boards.CACHE / "lock", "w") as lock:  # two runs at once fetch once
        fcntl.flock(lock, fcntl.LOCK_EX)
        roots = {}

        def root(arch):
            if arch not in roots:
                roots[arch] = apt.Apt(arch, say)
                if os.environ.get("LAB_OFFLINE") != "1":
                    roots[arch].update()
            return roots[arch]

        for name in names:
            board = boards.board(name)
            if complete(board) and not refresh:
                continue
            try:
                for tool, package in {**HOST_TOOLS, board.cross + "gcc": "gcc-" + board.cross.rstrip("-")}.items():
                    if not shutil.which(tool):
                        raise LookupError(f"{tool} is not installed (package {package}); run: make setup")
                host = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
                bring(board, root(board.deb), root(host))
            except (LookupError, subprocess.CalledProcessError, OSError) as err:
                missing[name] = str(err)
                say(f"{name}: UNAVAILABLE: {err}")
    return missing


def bring(board, foreign, host):
    began = time.time()
    depends = foreign.field(board.meta, "Depends")
    if not depends:
        raise LookupError(f"{board.meta} is not in the signed {board.deb} index")
    image = depends.split()[0].rstrip(",")
    version = image.removeprefix("linux-image-")
    tree = boards.CACHE / "kernel" / version
    extra = tree / "extra"
    made = extra / (".ok-" + fixtures.recipe())
    if board.kernel == version and complete(board):
        say(f"{board.name}: {version} is there")
        return
    apt.unpack(foreign.get(image), tree)
    shells = boards.CACHE / "busybox" / board.deb
    for package in ("busybox-static", "bash-static"):  # tests that need a shell with /dev/tcp and numbered descriptors take bash
        apt.unpack(foreign.get(package), shells)
    gather(foreign, boards.CACHE / "e2fs" / board.deb)
    if not made.exists():
        lacking = fixtures.build(board, version, foreign, host, extra, say)
        if lacking:
            raise LookupError(f"{version}: fixture modules not built: {' '.join(lacking)}; see {boards.CACHE}/build/{version}/make.log")
        made.touch()
    place(board, version, tree, shells)
    say(f"{board.name}: ready, {version}, {time.time() - began:.0f} s")


def gather(foreign, into):
    """Puts mke2fs and e2fsck, their loader (ld.so) and libraries into one folder."""
    if (into / "ld.so").exists() and (into / "e2fsck").exists():
        return
    tree = into.parent / (into.name + ".deb")
    for package in E2FS:
        apt.unpack(foreign.get(package), tree)
    found = {p.name: p for p in tree.rglob("*") if p.is_file()}
    into.mkdir(parents=True, exist_ok=True)
    for name in E2FS_FILES:
        shutil.copy(found[name].resolve(), into / name)
    loader = next(p for name, p in sorted(found.items()) if name.startswith("ld-linux"))
    shutil.copy(loader.resolve(), into / "ld.new")
    (into / "ld.new").chmod(0o755)
    os.replace(into / "ld.new", into / "ld.so")
    shutil.rmtree(tree)


def first(*paths):
    return next(p for p in paths if p.exists())


def place(board, version, tree, shells):
    """Makes the board's folder point at its files; kver comes last and says that it is whole."""
    board.dir.mkdir(parents=True, exist_ok=True)
    links = {
        "vmlinuz": tree / "boot" / f"vmlinuz-{version}", "config": tree / "boot" / f"config-{version}", "extra": tree / "extra",
        "modules": first(tree / "usr/lib/modules" / version, tree / "lib/modules" / version),
        "busybox": first(shells / "usr/bin/busybox", shells / "bin/busybox"),
        "bash": first(shells / "usr/bin/bash-static", shells / "bin/bash-static"),
        "e2fs": boards.CACHE / "e2fs" / board.deb,
    }
    for name, target in links.items():
        link = board.dir / name
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to(os.path.relpath(target, board.dir))
    if board.dtb:
        copy = board.dir / "dtb"
        copy.unlink(missing_ok=True)
        shutil.copy(next(tree.glob("usr/lib/linux-image-*/" + board.dtb)), copy)
        for fix in board.dtb_fix or []:
            subprocess.run(["fdtput", *fix.replace("DTB", str(copy)).split()], check=True)
    (board.dir / "kver").write_text(version)
