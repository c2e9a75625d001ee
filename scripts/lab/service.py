"""The product's own binary as a board's service, with a hub on the host: what an end-to-end test stands on."""
import json
import shlex
import shutil
import socket
import time

import boards
import disk
import hub
import machine
import program
import scratch

CONFIG = """state_dir = "/data/sandpiper"

[device]
connection_string_file = "/etc/sandpiper/connection-string"
gateway = "gateway"

[upstream]
mqtt_address = "{host}:{mqtt}"
https_address = "{host}:{https}"
trusted_ca = "/etc/sandpiper/hub-ca.pem"

[bundles]
trusted_ca = "/etc/sandpiper/hub-ca.pem"

[[bundles.trusted_keys]]
file = "/etc/sandpiper/release.pub"

[listen]
mqtt = ["0.0.0.0:8883"]
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(limit, what, ask, watch=None):
    """Asks again and again until ask gives something; watch may raise when waiting has become useless."""
    end, why = time.time() + limit, ""
    while time.time() < end:
        try:
            if answer := ask():
                return answer
        except (OSError, ValueError) as err:
            why = f": {err}"
        if watch:
            watch()
        time.sleep(0.3)
    raise boards.Trouble(f"{what}: not within {limit:.0f} s{why}", 1)


def ask(port, line, limit):
    """Has a board's guest/remote run a line of shell; returns exit code and output. A board that is away is an OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=limit) as s:
        s.sendall(line.encode() + b"\n")
        got = b""
        while b"\n##rc " not in got[-32:] or not got.endswith(b"\n"):
            chunk = s.recv(1 << 16)
            if not chunk:
                raise OSError("the board does not answer")
            got += chunk
    text, _, code = got.decode(errors="replace").rpartition("\n##rc ")
    return int(code), text


class Service:
    """A board with the agent on it. Its disk outlives every boot; boot() after off() or cut("kill") goes on with it."""

    def __init__(self, board, to, follow=(), extra="", image=None, limit=3600, on_output=None, prepare="", more=()):
        self.prepare, self.more = prepare, list(more)  # shell before the agent starts; QEMU arguments after those of the disk
        self.board, self.hub, self.follow, self.limit, self.on_output = board.need(), to, follow, limit, on_output
        self.machine, self.runs = None, []
        self.place = scratch.Folder()
        self.folder = self.place.path
        try:
            self.prepared(image, extra)
        except BaseException:  # interrupted, or the product does not build
            self.place.remove()
            raise

    def prepared(self, image, extra):
        """Makes disk, configuration and program."""
        to = self.hub
        self.image = image or self.folder / "disk.img"
        if not image:
            disk.ext4(self.image, 512)
        etc = self.folder / "etc"
        etc.mkdir()
        shutil.copy(to.dir / "ca.pem", etc / "hub-ca.pem")
        shutil.copy(to.folder / "release.pub", etc)
        (etc / "connection-string").write_text(to.connection)
        (etc / "config.toml").write_text(CONFIG.format(host=hub.HOST, mqtt=to.mqtt, https=to.https) + extra)
        program.device(self.board, self.folder / "sandpiper")
        self.remote, self.mqtt = free_port(), free_port()

    def boot(self):
        files = {"sandpiper": self.folder / "sandpiper", "etc": self.folder / "etc", "remote": boards.HERE / "guest/remote"}
        script = self.prepare + f"FOLLOW={shlex.quote(' '.join(self.follow))}\n" + (boards.HERE / "guest/service").read_text()
        drive = ["-drive", f"file={self.image},format=raw,if=none,id=d,cache=writeback", "-device", "virtio-blk-pci,drive=d", *self.more] if self.more else None
        options = machine.Options(timeout=self.limit, disk=str(self.image), drive=drive, reboots=True, append=["lab.mods=loop"], forward=[(self.remote, 9), (self.mqtt, 8883)])
        self.machine = machine.Machine(self.board, [machine.Job("service", script, files)], options, on_output=self.on_output)
        self.machine.start()
        return self

    def on(self, line, limit=30):
        """Runs a line of shell on the board; returns what it printed. An exit code other than 0 is an OSError, as is a board that is away."""
        code, text = ask(self.remote, line, limit)
        if code:
            raise OSError(f"{line}: {text.strip()[-300:]} (exit code {code})")
        return text

    def status(self):
        """The agent's own status. Asked again soon: a question that a reset swallowed waits for its whole limit, and no longer."""
        return json.loads(self.on("[ -S /run/sandpiper/control.sock ] && sandpiper status --json", 20))

    def alive(self):
        """Raises when the board is beyond waiting for."""
        if self.machine.process.poll() is not None or self.machine.run.deaths:
            failure = self.machine.run.failure or f"QEMU ended with {self.machine.process.returncode}"
            raise boards.Trouble(f"{self.board.name}: {failure}; log: {self.machine.log}", 4)

    def answers(self, limit=420):
        """Waits until the agent answers; returns its status."""
        return until(limit, f"{self.board.name}: the agent answers", self.status, self.alive)

    def cut(self, how):
        """Takes the power away as it stands. "sysrq": the kernel resets at once; "reset": the button; "kill": QEMU dies and is started anew."""
        if how == "sysrq":
            with socket.create_connection(("127.0.0.1", self.remote), timeout=10) as s:
                before = self.machine.run.boots
                s.sendall(b"echo b >/proc/sysrq-trigger\n")
                until(120, f"{self.board.name}: up again after sysrq b", lambda: self.machine.run.boots > before, self.alive)
        elif how == "reset":
            self.machine.reset()
        else:
            self.machine.kill()
            self._ended()
            self.boot()

    def off(self, limit=180):
        """Stops agent and modules as a shutdown would, and the board."""
        until(30, f"{self.board.name}: stop", lambda: self.on("touch /run/stop; kill $(cat /run/warden.pid); echo ok") or True, self.alive)
        until(limit, f"{self.board.name}: off", lambda: self.machine.process.poll() is not None)
        run = self._ended()
        if run.failure:
            raise boards.Trouble(f"{self.board.name}: {run.failure}; log: {run.log}", 4)

    def _ended(self):
        run, self.machine = self.machine.wait(), None
        self.runs.append(run)
        return run

    def close(self, keep=False):
        """Ends the board without a word if it still runs, and removes what was made; keep leaves the logs."""
        if self.machine:
            self.machine.kill()
            self._ended()
        if not keep:
            for run in self.runs:
                shutil.rmtree(run.log, ignore_errors=True)
        self.place.remove()
