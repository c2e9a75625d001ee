"""The other end: our hub on the host, and the bundles that it serves. Keys and certificates are made anew each time."""
import json
import signal
import subprocess
import threading

import boards
import machine
import scratch

HOST = "hub.sandpiper.test"  # every board's /etc/hosts gives it the host's loopback
DEVICE = "edge1"


def run(program, *args):
    """One of the host's own programs in build/; returns what it printed."""
    done = subprocess.run([str(boards.ROOT / "build" / program), *map(str, args)], cwd=boards.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise boards.Trouble(f"{program} {' '.join(map(str, args[:4]))}: {done.stderr.strip()}", 1)
    return done.stdout


def need_programs():
    for program in ("sandpiper-hub", "sandpiper-bundle"):
        if not (boards.ROOT / "build" / program).exists():
            raise boards.Trouble(f"build/{program} is not there; run: make")


class Hub:
    """A hub in a folder of its own, with one device in it, from `with` to its end."""

    def __enter__(self):
        need_programs()
        self.place, self.process, self.readers = scratch.Folder(), None, []
        self.folder = self.place.path
        try:
            return self.start()
        except BaseException:  # interrupted, or it did not start
            self.__exit__()
            raise

    def start(self):
        self.dir, self.bundles = self.folder / "hub", self.folder / "bundles"
        self.bundles.mkdir()
        with open(self.folder / "hub.log", "wb") as log:
            self.process = subprocess.Popen(
                [*machine.TIED, str(boards.ROOT / "build/sandpiper-hub"), "--dir", str(self.dir), "serve", "--host", HOST, "--mqtt", "127.0.0.1:0", "--https", "127.0.0.1:0",
                 "--bundles", str(self.bundles)], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        words = self.process.stdout.readline().replace(",", "").split()  # MQTT on ADDRESS, HTTPS on ADDRESS
        if len(words) != 6:
            raise boards.Trouble("sandpiper-hub did not start: " + (self.folder / "hub.log").read_text()[-300:], 1)
        self.mqtt, self.https = (words[i].rpartition(":")[2] for i in (2, 5))
        self.connection = self.verb("device", "create", DEVICE)
        run("sandpiper-bundle", "keygen", "-o", self.folder / "release.key")
        return self

    def __exit__(self, *_):
        for reader, thread in self.readers:
            reader.terminate()
            reader.wait()
            thread.join()
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
        self.place.remove()

    def verb(self, *args):
        return run("sandpiper-hub", "--dir", self.dir, *args)

    def pause(self):
        """It stands still: its connections stay, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def bundle(self, board, name, *args):
        """Builds and signs a bundle for a board; returns its URL."""
        variant = ["--variant", "v" + board.go["GOARM"]] if "GOARM" in board.go else []
        run("sandpiper-bundle", "build", "-o", self.bundles / f"{name}.spb", "--name", name, "--version", "1.0.0", "--sequence", 1, "--key", self.folder / "release.key",
            "--arch", board.go["GOARCH"], *variant, *args)
        return f"https://{HOST}:{self.https}/bundles/{name}.spb"

    def deploy(self, modules, route="FROM /messages/* INTO $upstream", desired=None):
        """Applies a deployment: {name: {"type": …, "settings": {…}}}, one route for all."""
        agent = {"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}},
                 "systemModules": {"edgeAgent": {"type": "docker", "settings": {"image": "sandpiper"}},
                                   "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "sandpiper"}}},
                 "modules": {n: {"status": "running", "restartPolicy": "always", **m} for n, m in modules.items()}}
        hub = {"schemaVersion": "1.1", "routes": {"up": route}, "storeAndForwardConfiguration": {"timeToLiveSecs": 86400}}
        content = {"$edgeAgent": {"properties.desired": agent}, "$edgeHub": {"properties.desired": hub},
                   **{n: {"properties.desired": desired or {}} for n in modules}}
        manifest = self.folder / "manifest.json"
        manifest.write_text(json.dumps({"modulesContent": content}))
        self.verb("deploy", "apply", DEVICE, manifest)

    def desire(self, module, patch):
        self.verb("twin", "set", DEVICE, module, json.dumps(patch))

    def follow(self, take):
        """Calls take with each event from the log's beginning on, until the hub ends."""
        reader = subprocess.Popen([*machine.TIED, str(boards.ROOT / "build/sandpiper-hub"), "--dir", str(self.dir), "events", "--follow", "--json"], stdout=subprocess.PIPE, start_new_session=True)

        def read():
            with reader.stdout:
                for line in reader.stdout:
                    take(json.loads(line))

        thread = threading.Thread(target=read)
        thread.start()
        self.readers.append((reader, thread))

    def events(self):
        """The device's whole log, as the hub holds it now."""
        return map(json.loads, self.verb("events", "--json", "--device", DEVICE).splitlines())
