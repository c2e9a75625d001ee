"""Power cuts of a whole board: a store at work on a real ext4, QEMU killed at a random moment, the disk left as a disk with a
write cache may leave it, and the board booted again to see whether the store kept its word.

QEMU's blklogwrites driver records every write and flush of a boot. After the kill the disk is made anew from what it was
before the boot: all writes up to the last flush, and of those behind it any, whole, torn at sectors, or not at all. One boot
both checks the last cut and works on towards the next. The control works without flushes and must be caught.

A seed repeats the moments and the choices, not what a board does in a moment; the folder of a cut that went wrong is kept, and
`lab powercut -again FOLDER` checks exactly that disk once more.
"""
import json
import os
import pathlib
import random
import shutil
import struct
import threading
import time

import boards
import disk
import machine
import output
import program
import scratch
import suite

MIB = 64
STORE = "/data/store"
FLUSH, FUA, DISCARD = 1, 2, 4
CONTROL_CUTS = 3  # a store that does not sync is caught by the first, nearly always


def replay(base, log, out, rnd):
    """Writes the disk that a cut leaves. Returns what happened to the writes, in words."""
    with open(base, "rb") as f:
        image = bytearray(f.read())
    with open(log, "rb") as f:
        raw = f.read()
    if len(raw) < 32:
        raise boards.Trouble("the write log is empty: QEMU ended before the board used its disk", 4)
    size = struct.unpack_from("<I", raw, 24)[0]  # of a sector; after magic, version and a count that a kill leaves behind
    at, writes, flushes, last = size, [], 0, 0
    while at + size <= len(raw):
        sector, count, flags, _ = struct.unpack_from("<QQQQ", raw, at)
        if sector == count == flags == 0:
            break
        at += size
        if flags & FLUSH:
            flushes, last = flushes + 1, len(writes)
        if flags & DISCARD or count == 0:
            continue
        if at + count * size > len(raw):
            break  # cut off in the middle
        writes.append((sector, count, flags, at))
        at += count * size
    fates = {"kept": 0, "torn": 0, "lost": 0}
    for i, (sector, count, flags, data) in enumerate(writes):
        fate = "kept" if i < last or flags & FUA else rnd.choice(["kept", "torn", "lost", "lost"])
        if i >= last:
            fates[fate] += 1
        if fate == "lost":
            continue
        for k in range(count):
            if fate == "kept" or rnd.random() < 0.5:
                image[(sector + k) * size:(sector + k + 1) * size] = raw[data + k * size:data + (k + 1) * size]
    with open(out, "wb") as f:
        f.write(image)
    return f"{len(writes)} writes, {flushes} flushes, behind the last {fates['kept']} kept, {fates['torn']} torn, {fates['lost']} lost"


class Cutter:
    """One board, one disk, one ledger."""

    def __init__(self, board, binary, folder, seed, nosync=False):
        self.board, self.binary, self.folder, self.seed, self.nosync = board, binary, pathlib.Path(folder), seed, nosync
        self.disk, self.base, self.log, self.ledger = (self.folder / n for n in ("disk.img", "base.img", "log.bin", "ledger"))
        self.acknowledged = 0

    def fresh(self):
        disk.ext4(self.disk, MIB)
        self.ledger.write_text("")
        return self

    def boot(self, work_on, rnd=None):
        """Checks the disk, and works on it until the power goes. Returns (verdict, Run)."""
        script = f"J=$(dirname $0); chmod 755 $J/powercut; $J/powercut check {STORE} $J/ledger || exit 1\n"
        options = machine.Options(timeout=int(os.environ.get("LAB_TIMEOUT") or 180))
        shutil.copyfile(self.disk, self.base)
        if work_on:
            script += f"exec $J/powercut work {'-nosync ' * self.nosync}{STORE} $J/ledger\n"
            self.log.write_bytes(b"")
            options.drive = ["-blockdev", f"driver=blklogwrites,node-name=d,file.driver=file,file.filename={self.disk},log.driver=file,log.filename={self.log},log-sector-size=512",
                             "-device", "virtio-blk-pci,drive=d"]
        else:
            options.disk = str(self.disk)
        said, cut = bytearray(), threading.Event()
        lines, delay = (rnd.randint(1, 300), rnd.uniform(0, 0.1)) if work_on else (0, 0)
        job = machine.Job("powercut", script, {"powercut": self.binary, "ledger": self.ledger})
        boot = machine.Machine(self.board, [job], options)

        def listen(chunk):
            said.extend(chunk)
            if work_on and not cut.is_set() and said.count(b"\n", max(0, said.find(b"working\n"))) > lines:
                cut.set()  # counted in what it said, so that a loaded machine does not make every cut an early one
                threading.Timer(delay, boot.kill).start()

        boot.on_output = output.Live(boot.tag, self.board.virtio, listen)
        run = boot.start().wait()
        lines = bytes(run.output.get("powercut", b"")).decode(errors="replace").split("\n")[:-1]  # a last line without its end was cut off
        verdict = next((json.loads(l[8:]) for l in lines if l.startswith("verdict ")), None)
        self.promises([l for l in lines if l[:2] in ("A ", "D ", "W ", "P ")])
        wrong = [l for l in lines if l.startswith(("E ", "powercut:", "panic:", "fatal"))]
        if verdict is not None and wrong:
            verdict["Wrong"] = (verdict["Wrong"] or []) + wrong
        return verdict, run

    def promises(self, lines):
        """Adds what the board said to the ledger, as the newest number of each kind."""
        newest = {}
        for line in self.ledger.read_text().split("\n")[:-1] + lines:
            what, _, number = line.rpartition(" ")
            newest[what] = max(newest.get(what, 0), int(number))
        self.ledger.write_text("".join(f"{what} {number}\n" for what, number in newest.items()))
        self.acknowledged = sum(n for what, n in newest.items() if what[0] in "AP")

    def trouble(self, verdict, run):
        """What a boot says is wrong, or None."""
        if run.failure:
            return suite.explain(suite.Report(self.board.name, run=run))
        if verdict is None:
            return "the check said nothing: " + bytes(run.output.get("powercut", b""))[-300:].decode(errors="replace")
        return "\n".join((verdict["Wrong"] or []) + (verdict["Lost"] or [])) or None

    def cuts(self, number, say):
        """Cuts the power so often. Returns (cuts whose check was good, what went wrong or None, the trouble is a loss)."""
        for n in range(number + 1):
            rnd, began = random.Random(f"{self.seed}/{n}"), time.time()
            verdict, run = self.boot(n < number, rnd)
            bad = self.trouble(verdict, run)
            if not bad or self.nosync and not run.failure:  # a control that is caught is no failure
                shutil.rmtree(run.log)
            if bad:
                return n, bad, bool(verdict and verdict["Lost"]) and not run.failure
            if n == number:
                say(f"check of cut {n}: nothing lost")
                break
            what = replay(self.base, self.log, self.disk, rnd)
            say((f"check of cut {n}: nothing lost; " if n else "") + f"cut {n + 1}: {self.acknowledged} promises so far; {what}; {time.time() - began:.1f} s")
        return number, None, False


def run(names, number, seed):
    """Power cuts on every board, and the control. Returns rows for the report."""
    rows = []
    for name in names:
        board = boards.board(name).need()
        if not board.virtio:
            raise boards.Trouble(f"no power cuts on {name}: its disk is an SD card, whose writes QEMU does not log; there are: arm64 arm64-61 armv7-61")
        row = {"board": name, "kernel": board.kernel, "cuts": number, "seed": seed, "failure": None, "died": False, "control": None}
        rows.append(row)
        say = lambda text: print(f"lab: {name}: {text}", flush=True)
        with scratch.Folder() as folder:
            binary = folder / "powercut"
            program.build(board, "./scripts/lab/powercut", binary)
            (folder / "real").mkdir()
            (folder / "control").mkdir()
            real, began = Cutter(board, binary, folder / "real", seed).fresh(), time.time()
            done, bad, loss = real.cuts(number, say)
            row |= {"done": done, "promises": real.acknowledged, "seconds": round(time.time() - began, 1)}
            if bad:
                row |= {"failure": bad, "died": not loss}
                kept = keep(real, name, done)
                say(f"AFTER CUT {done}: {bad}\nlab: {name}: kept; check it again: scripts/lab/lab powercut -again {kept}")
                continue
            control = Cutter(board, binary, folder / "control", seed, nosync=True).fresh()
            done, bad, loss = control.cuts(CONTROL_CUTS, lambda _: None)
            row["control"] = done if loss else None
            if loss:
                say(f"control: a store that does not sync was caught by cut {done}: {bad.splitlines()[0]}")
            else:
                row["failure"] = f"the control was not caught by {CONTROL_CUTS} cuts: the harness is blind ({bad or 'nothing was lost'})"
                say(row["failure"])
    return rows


def keep(cutter, name, cut):
    """The disk, ledger and program of a cut that went wrong, in build/lab."""
    kept = boards.RESULTS / f"powercut-{name}-{cutter.seed}-{cut}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for source, copy in ((cutter.base, "disk.img"), (cutter.ledger, "ledger"), (cutter.binary, "powercut")):
        shutil.copyfile(source, kept / copy)
    (kept / "board").write_text(name)
    return kept


def again(folder):
    """Checks a kept disk once more. Returns what is wrong, or None."""
    folder = pathlib.Path(folder).absolute()
    if not (folder / "board").exists():
        raise boards.Trouble(f"{folder} is no folder that lab powercut kept")
    with scratch.Folder() as place:
        for name in ("disk.img", "ledger"):
            shutil.copyfile(folder / name, place / name)
        cutter = Cutter(boards.board((folder / "board").read_text()).need(), folder / "powercut", place, 0)
        return cutter.trouble(*cutter.boot(False))
