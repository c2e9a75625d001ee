"""Who was told what: the ids that modules saw acknowledged, beside those in the hub's log."""
import collections
import re
import threading

ID = re.compile(r"([a-z0-9-]+)\.([0-9a-f]+)\.(\d+)")
SAID = re.compile(rb"Z (acked|stopped|up) (\S+)\r?\n")


class Ledger:
    """Fed from two sides by two threads; counts ids MODULE.SESSION.N as scripts/lab/beat makes them."""

    def __init__(self):
        self.lock, self.held = threading.Lock(), b""
        self.acked, self.got, self.stopped = set(), collections.Counter(), set()
        self.last, self.disorder = {}, 0

    def output(self, chunk):
        """What the board printed. A line that a reset tore names a smaller number of its session, which was acknowledged too."""
        self.held += chunk
        cut = self.held.rfind(b"\n") + 1
        lines, self.held = self.held[:cut], self.held[cut:]
        with self.lock:
            for word, what in SAID.findall(lines):
                if word == b"stopped":
                    self.stopped.add(what.decode())
                elif word == b"acked" and ID.fullmatch(what.decode()):
                    self.acked.add(what.decode())

    def event(self, event):
        """One event of the hub's log."""
        name = (event.get("systemProperties") or {}).get("$.mid", "")
        found = ID.fullmatch(name)
        if not found:
            return
        session, number = found[1] + "." + found[2], int(found[3])
        with self.lock:
            if name not in self.got and number < self.last.get(session, 0):
                self.disorder += 1
            self.got[name] += 1
            self.last[session] = max(number, self.last.get(session, 0))

    def received(self, module):
        with self.lock:
            return sum(name.startswith(module + ".") for name in self.got)

    def counts(self):
        """(acknowledged, received) so far."""
        with self.lock:
            return len(self._acknowledged()), len(self.got)

    def missing(self):
        """Acknowledged and not in the log. What is below a number of its session was acknowledged before that was sent."""
        with self.lock:
            return sorted(self._acknowledged() - set(self.got))

    def _acknowledged(self):
        names = set(self.acked)
        for session, number in self.last.items():
            names.update(f"{session}.{n}" for n in range(1, number))
        return names

    def rows(self, modules):
        """[(module, sessions, acknowledged, seen by us, received, duplicated, lost)]"""
        lost = self.missing()
        with self.lock:
            names = self._acknowledged()
            table = []
            for m in modules:
                mine = lambda group: [n for n in group if n.startswith(m + ".")]
                got = mine(self.got)
                sessions = {n.rpartition(".")[0] for n in mine(names) + got}
                table.append((m, len(sessions), len(mine(names)), len(mine(self.acked)), len(got), sum(self.got[n] - 1 for n in got), len(mine(lost))))
            return table
