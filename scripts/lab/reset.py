"""Resets: a board that stops petting its watchdog, is reset by it, and comes up again with its disk.

The disk has the two slots of an update and a data partition (disk.two_slots). What the guest does here with a counter and two
words on the data partition is what a boot loader and an update do between them: boot 1 installs version 2 into slot B and asks
for one trial of it, boot 2 tries B and hangs, boot 3 finds the trial used up and is back in slot A. The watchdog makes each
of the two steps.
"""
import dataclasses
import os
import shutil
import time

import boards
import disk
import machine
import scratch
import suite

# $P is what a partition's number is appended to.
SCRIPT = r"""
set -e
keep() { echo "$2" >/data/$1.new; sync; mv /data/$1.new /data/$1; sync; }
word() { cat /data/$1 2>/dev/null || echo $2; }
part() { case $1 in a) echo ${P}1;; b) echo ${P}2;; esac; }
bite() { # nobody pets it again
  [ -c /dev/watchdog ] || modprobe softdog
  echo "watchdog $(cat /sys/class/watchdog/watchdog0/identity)"
  timeout 120 watchdog -F -T 5 -t 900 /dev/watchdog || true
  echo "the watchdog did not bite"; exit 1
}
boot=$(( $(word boot 0) + 1 )); keep boot $boot
slot=$(word slot a)
if [ $slot = b ]; then # a trial counts down before it begins
  left=$(word left 0)
  if [ $left -gt 0 ]; then keep left $((left - 1)); else slot=a; keep slot a; fi
fi
mount -o ro $(part $slot) /mnt; version=$(cat /mnt/version 2>/dev/null || echo none); umount /mnt
echo "boot $boot slot $slot version $version"
case $boot in
1) for s in a b; do mount $(part $s) /mnt; echo version-of-$s >/mnt/version; sync; umount /mnt; done
   keep left 1; keep slot b; bite ;;
2) bite ;;
esac
"""
WANT = ["boot 1 slot a version none", "boot 2 slot b version version-of-b", "boot 3 slot a version version-of-a"]


@dataclasses.dataclass
class Result:
    """One board."""
    board: str
    kernel: str
    ok: bool
    died: bool
    said: list
    seconds: float
    why: str = ""


def run(name):
    board = boards.board(name).need()
    began = time.time()
    with scratch.Folder() as folder:
        image = folder / "disk.img"
        disk.two_slots(image)
        options = machine.Options(disk=image, data=disk.partition(board, 3), reboots=True, watchdog=board.virtio and board.karch == "arm64",
                                  timeout=int(os.environ.get("LAB_TIMEOUT") or 400))
        job = machine.Job("reset", f"P={disk.partition(board, '')}\n" + SCRIPT)
        done = machine.Machine(board, [job], options).start().wait()
    text = done.output.get("reset", b"").replace(b"\r\n", b"\n").decode(errors="replace")
    said = [l for l in text.split("\n") if l.startswith(("boot ", "watchdog "))]
    why = done.failure or ""
    boot_lines = [l for l in said if l.startswith("boot ")]
    if not why and boot_lines != WANT:
        why = f"got {boot_lines}, want {WANT}: {text[-300:]}"
    if not why and done.boots != len(WANT):
        why = f"{done.boots} boots, want {len(WANT)}"
    if done.failure:
        why = suite.explain(suite.Report(name, run=done))
    elif not why:
        shutil.rmtree(done.log)
    return Result(name, board.kernel, not why, bool(done.failure), said, round(time.time() - began, 1), why)


def show(r):
    """Its line for a person."""
    dog = next((l.removeprefix("watchdog ") for l in r.said if l.startswith("watchdog ")), "no watchdog")
    print(f"{'ok  ' if r.ok else 'FAIL'}  {r.board:9} {r.kernel:26} {r.seconds:6.1f}s  {dog}: {'slot A, B on trial, back to A, each by its watchdog' if r.ok else r.why}", flush=True)
