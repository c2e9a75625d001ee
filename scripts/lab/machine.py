"""One QEMU with one board in it, from its start to its end.

A Machine is made for one run: start() boots it, wait() returns the Run. In between the owner may read what the jobs print
(on_output), follow the marks (on_mark), reset() it as a power switch would, or kill() it.
"""
import dataclasses
import os
import pathlib
import re
import secrets
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import boards
import cpio
import initramfs
import output
import scratch
import verdict


# A board does not outlive the lab, however that ends.
TIED = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
LOGS = 30  # log folders of runs that went wrong: the oldest go


@dataclasses.dataclass
class Job:
    name: str
    script: str
    files: dict = dataclasses.field(default_factory=dict)  # name in the job's folder: path on the host


@dataclasses.dataclass
class Options:
    timeout: int = int(os.environ.get("LAB_TIMEOUT") or 120)  # seconds for the whole run
    disk: str = None  # image that becomes /data
    data: str = None  # the guest's name of the partition with /data, when it is not the whole disk
    drive: list = None  # QEMU arguments instead of those for disk
    reboots: bool = False  # the board may reset itself
    watchdog: bool = False  # i6300esb, virt arm64 only
    share: str = None  # folder of the host at /share (9p, virt boards)
    forward: list = dataclasses.field(default_factory=list)  # (host port, guest port)
    append: list = dataclasses.field(default_factory=list)  # kernel command line
    clock: int = None  # the guest's clock, in seconds since 1970
    add: dict = dataclasses.field(default_factory=dict)  # path in the guest: path on the host
    console: bool = False  # our terminal is the board's console
    verbose: bool = bool(os.environ.get("LAB_VERBOSE"))


@dataclasses.dataclass
class Run:
    """What a run left behind."""
    board: str
    kernel: str
    limit: int
    log: pathlib.Path
    jobs: dict = dataclasses.field(default_factory=dict)  # name: (exit code or None, seconds)
    output: dict = dataclasses.field(default_factory=dict)  # name: bytes
    marks: dict = dataclasses.field(default_factory=dict)  # mark: seconds since the start
    latest: dict = dataclasses.field(default_factory=dict)  # mark: when it came last, as time.time() has it; a board that resets itself has several
    facts: dict = dataclasses.field(default_factory=dict)  # cpu, lacks, warnings
    deaths: list = dataclasses.field(default_factory=list)
    full: set = dataclasses.field(default_factory=set)
    broken: str = None
    boots: int = 0
    current: str = None
    done: bool = False
    timed_out: bool = False
    ended_on_purpose: bool = False
    qemu_code: int = None
    qemu_error: str = ""
    seconds: float = 0

    @property
    def failure(self):
        return verdict.judge(self)


class Machine:
    def __init__(self, board, jobs, options=None, on_output=None, on_mark=None):
        self.board, self.jobs, self.options = board.need(), jobs, options or Options()
        self.on_output, self.on_mark = on_output, on_mark
        self.tag = secrets.token_hex(4)
        runs = boards.RESULTS / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        for old in sorted(runs.iterdir(), key=lambda p: p.stat().st_mtime)[:-LOGS]:
            shutil.rmtree(old, ignore_errors=True)
        self.log = pathlib.Path(tempfile.mkdtemp(prefix=f"{board.name}-", dir=runs))
        self.run = Run(board.name, board.kernel, self.options.timeout, self.log)
        self.process = self.folder = None

    def start(self):
        self.folder = scratch.Folder()
        self.work = self.folder.path
        self.out, self.tar = self.work / "out", self.work / "tar"
        try:
            self._start()
        except BaseException:  # interrupted, or no QEMU
            if self.process:
                self.process.kill()
                self.process.wait()
            self.folder.remove()
            raise
        return self

    def _start(self):
        initrd = self._initrd()
        self.out.touch()
        command = self._command(initrd)
        (self.log / "cmd").write_text(shlex.join(map(str, command)) + "\n")
        self.began = time.time()
        with open(self.log / "qemu.err", "wb") as errors:
            self.process = subprocess.Popen(TIED + [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=t) for t in (self._follow_console, self._follow_output)]
        for thread in self.threads:
            thread.start()
        threading.Thread(target=self._guard, daemon=True).start()

    def wait(self):
        """Waits for the end, cleans up, and returns the Run. The log folder of a run that failed stays."""
        try:
            self.run.qemu_code = self.process.wait()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.ended.set()
            for thread in self.threads:
                thread.join()
            self.run.seconds = round(time.time() - self.began, 1)
            self.run.qemu_error = (self.log / "qemu.err").read_text(errors="replace").strip()[-300:]
            raw = self.out.read_bytes()
            self.run.output = output.split(raw, self.tag, self.board.virtio, self.tar, [j.name for j in self.jobs])
            (self.log / "out.log").write_bytes(raw)
            if self.tar.exists() and self.tar.stat().st_size:
                shutil.copy(self.tar, self.log / "out.tar")
            self.folder.remove()
        return self.run

    def kill(self):
        """Ends it as the owner wants, without a word to the guest."""
        self.run.ended_on_purpose = True
        self.process.kill()

    def reset(self):
        """The reset button: the CPU starts anew, the disk keeps what it was given."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(str(self.work / "qmp"))
            talk = s.makefile("rw")
            talk.readline()
            for command in ("qmp_capabilities", "system_reset"):
                talk.write('{"execute": "%s"}\n' % command)
                talk.flush()
                while '"return"' not in talk.readline():
                    pass

    def type(self, source):
        """Sends what comes from a file descriptor to the console, once the jobs begin, until the board ends."""
        while "begin" not in self.run.marks and self.process.poll() is None:
            self.ended.wait(0.05)
        while self.process.poll() is None:
            if select.select([source], [], [], 0.2)[0]:
                typed = os.read(source, 256)
                if not typed:
                    return
                os.write(self.process.stdin.fileno(), typed)

    def _initrd(self):
        jobs, whole = self.work / "jobs.cpio", self.work / "initrd"
        with cpio.Archive(jobs) as a:
            for i, job in enumerate(self.jobs):
                a.text(f"lab/jobs/{i:03d}/run", job.script)
                for name, path in job.files.items():
                    a.copy(f"lab/jobs/{i:03d}/{name}", path)
            for name, path in self.options.add.items():
                a.copy(name, path)
        with open(whole, "wb") as to:
            for part in (initramfs.base(self.board), jobs):
                with open(part, "rb") as f:
                    shutil.copyfileobj(f, to, 1 << 20)
        jobs.unlink()
        return whole

    def _command(self, initrd):
        b, o = self.board, self.options
        words = [*b.qemu, "-display", "none", "-nodefaults", "-serial", "stdio", "-kernel", b.dir / "vmlinuz", "-initrd", initrd,
                 "-qmp", f"unix:{self.work}/qmp,server=on,wait=off"]
        words += [] if o.reboots else ["-no-reboot"]
        kernel = [f"console={b.console}", "panic=-1", "quiet", "cgroup_enable=memory", f"lab.tag={self.tag}", f"lab.board={b.name}",
                  f"lab.time={o.clock or int(time.time())}", *o.append]
        net = "user,id=n" + "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in o.forward)
        if b.virtio:
            words += ["-device", "virtio-serial-pci", "-chardev", f"file,id=o,path={self.out}", "-device", "virtserialport,chardev=o,name=lab.out",
                      "-chardev", f"file,id=t,path={self.tar}", "-device", "virtserialport,chardev=t,name=lab.tar", "-device", "virtio-rng-pci",
                      "-netdev", net, "-device", "virtio-net-pci,netdev=n,romfile="]
            kernel += ["lab.out=vport"]
            if o.share:
                words += ["-fsdev", f"local,id=s,path={os.path.abspath(o.share)},security_model=none", "-device", "virtio-9p-pci,fsdev=s,mount_tag=share"]
                kernel += ["lab.share=9p"]
            if o.disk and not o.drive:
                words += ["-drive", f"file={o.disk},format=raw,if=none,id=d,cache=writeback", "-device", "virtio-blk-pci,drive=d"]
            if o.watchdog:
                words += ["-device", "i6300esb", "-watchdog-action", "reset"]
        else:
            words += ["-dtb", b.dir / "dtb", "-serial", f"file:{self.out}", "-netdev", net, "-device", "usb-net,netdev=n"]
            # before 6.2 the kernel trusts no generator whose driver does not say how good it is, and this one's does not: without trust the
            # pool is filled by jitter, measured with a timer of 1 MHz; behind QEMU's generator is the host's
            kernel += ["lab.out=/dev/ttyS1", "dwc_otg.lpm_enable=0", "rng_core.default_quality=1000"]
            if o.disk and not o.drive:
                words += ["-drive", f"file={o.disk},if=sd,format=raw"]
        if o.disk or o.drive:
            kernel += ["lab.data=" + (o.data or ("/dev/vda" if b.virtio else "/dev/mmcblk0"))]
        return words + (o.drive or []) + ["-append", " ".join(kernel)]

    def _guard(self):
        if not self.ended.wait(self.options.timeout):
            self.run.timed_out = True
            self.process.kill()

    def _follow_console(self):
        mark = re.compile(rb"##lab " + self.tag.encode() + rb" (\S+) ?(.*?)\r?\n")
        with open(self.log / "console.log", "wb", buffering=0) as console:
            if self.options.console:
                self._be_console(console)
                return
            for line in self.process.stdout:
                console.write(line)
                if self.options.verbose:
                    os.write(2, line)
                found = mark.search(line)
                if found:
                    self._mark(found[1].decode(), found[2].decode(errors="replace"))
                elif (what := verdict.death(line)):
                    self.run.deaths.append(what)

    def _be_console(self, log):
        """Bytes as they come, for a person. The marks are noted all the same."""
        held, mark = b"", re.compile(rb"##lab " + self.tag.encode() + rb" (\S+) ?(.*?)\r?\n")
        while chunk := os.read(self.process.stdout.fileno(), 4096):
            log.write(chunk)
            if "begin" in self.run.marks:
                os.write(1, chunk)
            held += chunk
            for found in mark.finditer(held):
                self._mark(found[1].decode(), found[2].decode(errors="replace"))
            held = held[held.rfind(b"\n") + 1:]

    def _mark(self, word, rest):
        run, now = self.run, time.time() - self.began
        run.marks.setdefault(word, round(now, 1))
        run.latest[word] = time.time()
        if word == "up":
            run.boots += 1
        elif word in ("cpu", "lacks"):
            run.facts[word] = rest
        elif word == "warn":
            run.facts.setdefault("warnings", []).append(rest)
        elif word == "full":
            run.full.add(rest)
        elif word == "broken":
            run.broken = rest
        elif word == "begin":
            run.current, self.job_began = self.jobs[int(rest)].name, now
        elif word == "end":
            number, code, _ = rest.split(" ")
            run.jobs[self.jobs[int(number)].name], run.current = (int(code), round(now - self.job_began, 1)), None
        elif word == "done":
            run.done = True
        if self.on_mark:
            self.on_mark(word, rest)

    def _follow_output(self):
        """Hands on what the jobs print, as it comes."""
        with open(self.out, "rb") as f:
            while True:
                last = self.ended.is_set()
                chunk = f.read()
                if chunk and self.on_output:
                    self.on_output(chunk)
                if last and not chunk:
                    return
                if not chunk:
                    self.ended.wait(0.03)
