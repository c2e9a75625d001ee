"""The lab's test of itself: what goes wrong on a board must be told as what it is, in its time, and leave nothing behind.

Each case is a run of the lab's own command line with folders of its own for temporary files and results. Nothing else is
looked at than what a user sees: the exit code, the words, the clock, the folders, and the processes.
"""
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import boards
import disk
import report
import scratch

LIMIT = int(os.environ.get("LAB_TIMEOUT") or 120)  # seconds of a boot
SLACK = 60  # seconds for compiling and cleaning up
PACKAGE = "./scripts/lab/selftest"
BITS = 24  # MiB of the disk that is filled


@dataclasses.dataclass
class Case:
    """A test that goes wrong, and what the lab must say."""
    test: str
    code: int
    says: list
    limit: int = LIMIT
    disk: bool = False
    sends: signal.Signals = None  # what the lab itself is sent while the board runs


CASES = [
    Case("TestNothing", report.PASSED, ["ok  ", "SKIPPED: goes wrong on purpose"]),  # runs with no name: all are skipped
    Case("TestFailure", report.FAILED, ["FAIL", "1 failed", "got what nobody wants, want it"]),
    Case("TestPanic", report.FAILED, ["FAIL", "panic: nobody recovers from this"]),
    Case("TestExit", report.FAILED, ["FAIL", "ended with 7"]),
    Case("TestHang", report.FAILED, ["FAIL", "hang: the tests' own time-out", "panic: test timed out after"], limit=LIMIT),
    Case("TestBoardHang", report.DIED, ["hang: no end in ", f"within {LIMIT} s"]),
    Case("TestKernelOops", report.DIED, ["kernel oops: "]),
    Case("TestKernelPanic", report.DIED, ["kernel panic: sysrq triggered crash"]),
    Case("TestFullDisk", report.FAILED, ["FAIL", "disk full: /data", "no space left on device"], disk=True),
    Case("TestBoardHang", 130, [], sends=signal.SIGTERM),
    Case("TestBoardHang", -signal.SIGKILL, [], sends=signal.SIGKILL),  # the next start of the lab removes what it left
]


def run(name, only):
    """Every case, or those with a name in only, on one board. Returns the exit code."""
    board = boards.board(name).need()
    passed = failed = 0
    for case in [c for c in CASES if not only or c.test in only]:
        began = time.time()
        with scratch.Folder(scratch.PREFIXES[1]) as folder:
            bad = play(board, case, folder)
        what = case.test + (f", and the lab gets {case.sends.name}" if case.sends else "")
        print(f"{'FAIL' if bad else 'ok  '}  {board.name:9} {what:40} {time.time() - began:6.1f}s  {'; '.join(bad) or 'told as: ' + (case.says[-1] if case.says else f'ended with {case.code}')}", flush=True)
        passed, failed = passed + (not bad), failed + bool(bad)
    print(f"lab: self-test on {board.name}: {passed} passed, {failed} failed")
    return report.FAILED if failed else report.PASSED


def play(board, case, folder):
    """Runs a case. Returns what is wrong."""
    scratch, results = folder / "tmp", folder / "results"
    scratch.mkdir()
    command = [sys.executable, str(boards.HERE / "lab"), "test", PACKAGE, "-board", board.name]
    if case.test != "TestNothing":
        command += ["-run", f"^{case.test}$"]
    if case.disk:
        disk.ext4(folder / "disk.img", BITS)
        command += ["-disk", str(folder / "disk.img")]
    env = {**os.environ, "TMPDIR": str(scratch), "LAB_RESULTS": str(results), "LAB_TEST_BREAK": case.test, "LAB_TIMEOUT": str(case.limit)}
    began = time.time()
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(command, env=env, stdout=said, stderr=subprocess.STDOUT, cwd=boards.ROOT, start_new_session=True)
        try:
            if case.sends:
                wait_for(lambda: list(results.glob("runs/*/console.log")) and b" begin 0" in next(results.glob("runs/*/console.log")).read_bytes(), case.limit, process)
                process.send_signal(case.sends)
            code = process.wait(case.limit + SLACK)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return [f"the lab itself did not end within {case.limit + SLACK} s"]
    if case.sends == signal.SIGKILL:
        wait_for(lambda: not processes(str(folder)), SLACK, None)
        subprocess.run([sys.executable, str(boards.HERE / "lab"), "boards"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    text = (folder / "said").read_text(errors="replace")
    bad = [] if code == case.code else [f"exit code {code}, want {case.code}"]
    bad += [f"does not say {word!r}" for word in case.says if word not in text]
    bad += [f"process {pid} is left: {line}" for pid, line in processes(str(folder))]
    bad += [f"{path} is left" for path in scratch.rglob("*")]
    logs = list(results.glob("runs/*"))
    if case.code == report.PASSED and logs or len(logs) > 1:
        bad.append(f"{len(logs)} log folders are left")
    if case.code == report.DIED and not (logs and (logs[0] / "console.log").exists()):
        bad.append("no console log is kept")
    if bad:
        print(text[-3000:])
    return bad + ([f"took {time.time() - began:.0f} s"] if time.time() - began > case.limit + SLACK else [])


def wait_for(true, seconds, process):
    end = time.time() + seconds
    while not true() and time.time() < end and (not process or process.poll() is None):
        time.sleep(0.1)


def processes(word):
    """[(pid, command line)] of those that have a word in their command line."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # ended meanwhile
        if word in line:
            found.append((path.parent.name, line[:120]))
    return found
