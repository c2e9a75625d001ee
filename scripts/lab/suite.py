"""Runs Go tests of many packages in one boot of a board, and says what became of each."""
import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import time

import boards
import machine
import output
import passed
import program
import scratch
import verdict

PASSED_ON = ("SANDPIPER_", "GODEBUG", "GOTRACEBACK", "LAB_TEST_")


@dataclasses.dataclass
class Outcome:
    """One package on one board."""
    board: str
    package: str
    ok: bool
    seconds: float = 0
    passed: list = dataclasses.field(default_factory=list)
    failed: list = dataclasses.field(default_factory=list)
    skipped: dict = dataclasses.field(default_factory=dict)  # test: reason
    why: str = None  # when the package did not end by itself
    text: str = ""
    cached: bool = False  # passed before, and nothing has changed

    def line(self):
        state = "ok  " if self.ok else "FAIL"
        extra = f"  {len(self.passed)} passed"
        extra += f", {len(self.failed)} failed" if self.failed else ""
        extra += f", {len(self.skipped)} SKIPPED" if self.skipped else ""
        return f"{state}  {self.board:9} {self.package.removeprefix('github.com/sandpiper-edge/sandpiper/'):24} {self.seconds:6.1f}s{extra}" + (f"  ({self.why})" if self.why else "") + ("  (cached)" if self.cached else "")


@dataclasses.dataclass
class Report:
    """One board: its run and its packages."""
    board: str
    kernel: str = None
    outcomes: list = dataclasses.field(default_factory=list)
    run: machine.Run = None
    unavailable: str = None
    build_seconds: float = 0

    @property
    def failure(self):
        return self.run.failure if self.run else None


def settings():
    """The caller's variables that change what a test does."""
    return sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(PASSED_ON) and k != "LAB_TEST_HOST")


def exports():
    return "".join(f"export {k}={shlex.quote(v)}\n" for k, v in os.environ.items() if k.startswith(PASSED_ON))


def compile_tests(board, patterns, into, pattern, timeout, arguments=""):
    """A job per package with tests."""
    jobs = []
    for path, folder in program.packages(board, patterns):
        binary = into / f"{len(jobs)}.test"
        program.build(board, path, binary, test=True)
        if not binary.exists():
            continue
        files = {"bin": binary}
        for entry in os.scandir(folder):  # pages and tables that tests read where they stand
            if entry.is_file() and not entry.name.startswith(".") and not entry.name.endswith(".go") and entry.stat().st_size < 1 << 20:
                files["cwd/" + entry.name] = entry.path
        if os.path.isdir(folder + "/testdata"):
            files["cwd/testdata"] = folder + "/testdata"
        # the tests' own time-out comes first: it prints where they hang. A slow boot took its part of the time
        limit = f"L=$(( {timeout} - 20 - $(cut -d. -f1 /proc/uptime) )); [ $L -ge 10 ] || L=10; [ $L -le 1200 ] || L=1200\n"
        jobs.append(machine.Job(path, exports() + limit + "J=$(dirname $0); mkdir -p $J/cwd; cd $J/cwd; chmod 755 $J/bin\n"
                    f"exec $J/bin -test.v=test2json -test.timeout=${{L}}s -test.run={shlex.quote(pattern or '')} {arguments}\n", files))
    return jobs


def run(board, patterns, pattern=None, options=None, arguments="", live=False, always=None):
    """Compiles, boots, runs. Returns the Report of the board. With always, the end of a package's path, other packages that passed
    before and are the same again are not run."""
    options = options or machine.Options()
    with scratch.Folder() as folder:
        began = time.time()
        jobs = compile_tests(board, patterns, folder, pattern, options.timeout, arguments)
        if not jobs:
            raise boards.Trouble(f"no package with tests in {' '.join(patterns)}")
        report = Report(board.name, board.kernel, build_seconds=round(time.time() - began, 1))
        keys = {}
        if always and any(j.name.endswith(always) for j in jobs):
            keys = {j.name: passed.key(board, j, [pattern, arguments, settings()]) for j in jobs if not j.name.endswith(always)}
        for name, one in keys.items():
            if found := passed.look(one):
                report.outcomes.append(Outcome(**found, cached=True))
        known = {o.package for o in report.outcomes}
        jobs = [j for j in jobs if j.name not in known]
        boot = machine.Machine(board, jobs, options)
        if live:
            write = lambda b: (sys.stdout.buffer.write(b.replace(b"\x16", b"")), sys.stdout.flush())
            boot.on_output = output.Live(boot.tag, board.virtio, write)
        report.run = boot.start().wait()
    failure = report.failure
    for job in jobs:
        report.outcomes.append(one := read(board.name, job.name, report.run, failure))
        if one.ok and not failure and job.name in keys:
            passed.note(keys[job.name], {k: getattr(one, k) for k in ("board", "package", "ok", "seconds", "passed", "skipped")})
    if not failure and all(o.ok for o in report.outcomes) and not os.environ.get("LAB_KEEP"):
        shutil.rmtree(report.run.log)
    return report


def read(board, package, run, failure):
    """What a package's output says."""
    code, seconds = run.jobs.get(package, (None, 0))
    text = run.output.get(package, b"").replace(b"\r\n", b"\n")
    events = subprocess.run(["go", "tool", "test2json", "-t", "-p", package], input=text, capture_output=True).stdout
    result = Outcome(board, package, code == 0, seconds, text=text.replace(b"\x16", b"").decode(errors="replace"))
    said = {}
    for line in events.splitlines():
        event = json.loads(line)
        test, action = event.get("Test"), event["Action"]
        if not test:
            continue
        if action == "output":
            said.setdefault(test, []).append(event["Output"].strip())
        elif action == "pass":
            result.passed.append(test)
        elif action == "fail":
            result.failed.append(test)
        elif action == "skip":
            lines = [l for l in said.get(test, []) if l and not l.startswith(("=== ", "--- "))]
            result.skipped[test] = lines[-1] if lines else "no reason given"
    if code is None:
        result.why = failure or "did not run"
    elif code and "panic: test timed out" in result.text:
        result.why = "hang: the tests' own time-out; a slow package gets longer with LAB_TIMEOUT=600"
    elif code and run.full:
        result.why = "disk full: " + " ".join(sorted(run.full))
    elif code and not result.failed:
        result.why = f"ended with {code}"
    elif not code and not result.passed and not result.skipped:
        result.ok, result.why = False, "no test ran"
    return result


def explain(report):
    """The lines for a board that died: what, its console's end, where the logs are."""
    if not report.failure:
        return ""
    return f"lab: {report.board}: {report.failure}\n{verdict.tail(report.run.log / 'console.log')}\nlab: {report.board}: log: {report.run.log}"
