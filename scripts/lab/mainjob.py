"""The main job on boards: hub on the host, agent on the board, two kinds of bundles in their sandboxes, and the power going again and again."""
import os
import random
import time

import boards
import hub
import ledger
import service

MODULES = {"beat-native": "native", "beat-signed": "sandbox"}
LIMITS = {"memory": "48MiB", "cpu": 0.5, "pids": 24}
CGROUP = {"memory.max": str(48 << 20), "cpu.max": "50000 100000", "pids.max": "24"}  # the same, as the kernel says it
CUTS = ["sysrq", "reset", "kill"]
STRICT = "FROM /messages/* INTO $upstream"
LOOSE = {"route": STRICT, "durability": "relaxed(30s)"}  # acknowledged from memory: what a reset then takes, the ledger must show


class Job:
    """One board's main job. Every act says what it saw, and raises when that is not what it should be."""

    def __init__(self, board, resets, seed, route=STRICT):
        self.board, self.resets, self.random, self.route = board, resets, random.Random(f"{seed}/{board.name}"), route
        self.book, self.began = ledger.Ledger(), time.time()

    def say(self, text):
        print(f"lab: {self.board.name}: {time.time() - self.began:6.1f}s  {text}", flush=True)

    def run(self):
        """Returns how many acknowledged messages were lost."""
        with hub.Hub() as self.hub:
            self.device = service.Service(self.board, self.hub, follow=MODULES, on_output=self.book.output)
            kept = True
            try:
                lost = self.play()
                kept = bool(lost)
                return lost
            finally:
                self.hub.resume()
                self.device.close(keep=kept)

    def play(self):
        self.say(f"device binary of {self.device.folder.joinpath('sandpiper').stat().st_size} bytes, disk of 512 MiB, hub on the host's loopback")
        self.hub.follow(self.book.event)
        self.device.boot()
        version = self.device.answers()["version"]
        self.say(f"kernel {self.board.kernel}: agent {version} answers")
        self.deploy()
        self.publishes(10)
        self.say("native bundle and signed bundle deployed from the hub, telemetry of both is in its log")
        self.limits()
        for n in range(self.resets):
            self.reset(n, CUTS[n % len(CUTS)])
        self.limits()
        self.footprint()
        self.settle()
        self.device.off()
        self.say("modules stopped, agent stopped, board off")
        return self.balance()

    def deploy(self):
        modules = {}
        for name, kind in MODULES.items():
            view = ["--host-view"] if kind == "native" else []
            url = self.hub.bundle(self.board, name, "--go", "./scripts/lab/beat", *view)
            modules[name] = {"type": kind, "settings": {"image": url, "limits": LIMITS}}
        self.hub.deploy(modules, self.route)

    def publishes(self, more, limit=600):
        """Waits until the hub has so many new messages of each module."""
        goal = {m: self.book.received(m) + more for m in MODULES}
        service.until(limit, f"{self.board.name}: {more} new messages of each module", lambda: all(self.book.received(m) >= n for m, n in goal.items()), self.device.alive)

    def limits(self):
        """Reads the limits where they are in force: in the cgroup of each module's own process."""
        def running():
            modules = self.device.status()["modules"]
            return len(modules) == len(MODULES) and all(m.get("pid") for m in modules) and modules

        for module in service.until(120, f"{self.board.name}: both modules run", running, self.device.alive):
            group = "/sys/fs/cgroup" + self.device.on(f"cat /proc/{module['pid']}/cgroup").strip().partition("::")[2]
            names = " ".join(CGROUP)
            said = dict(zip(CGROUP, self.device.on(f"cd {group} && cat {names}").strip().split("\n")))
            now = self.device.on(f"cd {group} && cat memory.current pids.current").split()
            if said != CGROUP:
                raise boards.Trouble(f"{self.board.name}: {module['name']}: {group} holds {said}, want {CGROUP}", 1)
            limits = ", ".join(f"{k} {v}" for k, v in said.items())
            self.say(f"{module['name']} ({module['type']}): {limits} in {group}; {int(now[0]) / 2**20:.1f} MiB, {now[1]} tasks now")

    def reset(self, n, how):
        """One reset at a random moment; at every fourth the hub stands still meanwhile, and messages wait on the board's disk."""
        if self.route is STRICT:
            self.publishes(3)
        dark = n % 4 == 3
        if dark:
            self.hub.pause()
        time.sleep(self.random.uniform(1, 4) if dark else self.random.uniform(0, 3))
        before, at = self.book.counts(), time.time()
        self.device.cut(how)
        self.device.answers()
        there, latest = time.time() - at, self.device.machine.run.latest
        if dark:
            self.hub.resume()
        self.publishes(1)
        self.say(f"reset {n + 1} of {self.resets} ({how}{', hub standing still' if dark else ''}) after {before[0]} acknowledged, {before[1]} received: "
                 f"kernel up after {latest['up'] - at:.1f} s, board ready after {latest['ready'] - at:.1f} s, agent answers after {there:.1f} s, both modules' messages arrive after {time.time() - at:.1f} s")

    def footprint(self):
        agent, warden = pss(self.device)
        self.say(f"memory (PSS) with {len(MODULES)} modules: agent {agent:.1f} MiB + warden {warden:.1f} MiB = {agent + warden:.1f} MiB")

    def settle(self):
        """Stops the modules, and waits until the hub has what was acknowledged or has had time enough."""
        for name in MODULES:
            self.hub.desire(name, {"stop": True})
        service.until(300, f"{self.board.name}: the modules stop", lambda: self.book.stopped >= set(MODULES), self.device.alive)
        end = time.time() + (120 if self.route is STRICT else 45)
        while self.book.missing() and time.time() < end:
            time.sleep(1)

    def balance(self):
        """The ledger, read from the hub's log once more from its beginning."""
        book = ledger.Ledger()
        book.acked = self.book.acked
        for event in self.hub.events():
            book.event(event)
        total = [0, 0, 0, 0]
        for name, sessions, acknowledged, seen, received, duplicated, lost in book.rows(MODULES):
            self.say(f"{name:12} sessions={sessions} acknowledged={acknowledged} (read on the board: {seen}) received={received} duplicated={duplicated} lost={lost}")
            total = [a + b for a, b in zip(total, (acknowledged, received, duplicated, lost))]
        for name in book.missing()[:20 if self.route is STRICT else 2]:
            self.say(f"LOST {name}")
        self.say("ledger: resets=%d acknowledged=%d received=%d duplicated=%d lost=%d out-of-order=%d" % (self.resets, *total, book.disorder))
        if total[0] < 10 * self.resets and self.route is STRICT:
            raise boards.Trouble(f"{self.board.name}: only {total[0]} messages were acknowledged; the run proves nothing", 1)
        return total[3] + book.disorder


def pss(device):
    """Proportional set sizes of agent and warden, in MiB."""
    agent = device.status()["pid"]
    line = f"for p in {agent} $(cat /run/warden.pid); do sed -n 's/^Pss: *//p' /proc/$p/smaps_rollup; done"
    return [int(words.split()[0]) / 1024 for words in device.on(line).strip().split("\n")]


def control(name, seed):
    """A route that acknowledges what is in memory only, two resets: a ledger that finds nothing lost here finds nothing anywhere."""
    lost = Job(boards.board(name), 2, seed, LOOSE).run()
    print(f"lab: {name}: control, acknowledged from memory by the manifest's own wish: {lost} lost" + ("" if lost else "; THE LEDGER SEES NO LOSS"), flush=True)
    return lost > 0


def main(names, only_control=False):
    """The main job on each board in turn, or the control on the first; the exit code says the worst that happened."""
    resets, seed = int(os.environ.get("LAB_RESETS") or 20), os.environ.get("LAB_SEED") or str(int(time.time()))
    passed, failed, code = 0, 0, 0
    print(f"lab: main job on {' '.join(names)}: {resets} resets each, LAB_SEED={seed}", flush=True)
    jobs = [(names[0], lambda: control(names[0], seed))] if only_control else []
    jobs += [] if only_control else [(name, lambda name=name: not Job(boards.board(name), resets, seed).run()) for name in names]
    for name, act in jobs:
        try:
            good = act()
            passed, failed, code = passed + good, failed + (not good), max(code, int(not good))
        except (boards.Trouble, OSError) as trouble:
            print(f"lab: {name}: FAILED: {trouble}", flush=True)
            failed, code = failed + 1, max(code, getattr(trouble, "code", 1))
    print(f"lab: {passed} passed, {failed} failed, 0 skipped", flush=True)
    return code
