"""A private apt root for one architecture: the host's dpkg and apt never hear of it.

Sources are the host's own for its own release; signatures are checked as usual. An index that is out of sync for one
architecture leaves the others alone.
"""
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import shlex
import subprocess

import boards


def _sysroot():
    """scripts/sysroot as a module: it knows how to read the host's sources."""
    loader = importlib.machinery.SourceFileLoader("sysroot", str(boards.ROOT / "scripts" / "sysroot"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sysroot", loader))
    loader.exec_module(module)
    return module


class Apt:
    """Packages of one architecture. get() returns a file that apt has checked against the signed index."""

    def __init__(self, arch, say):
        self.arch, self.say = arch, say
        root = boards.CACHE / "apt" / arch
        for sub in ("lists/partial", "cache/archives/partial", "etc"):
            (root / sub).mkdir(parents=True, exist_ok=True)
        (root / "status").touch()
        sysroot = _sysroot()
        deb822, lines = sysroot.sources(sysroot.release())
        (root / "etc/lab.sources").write_text(deb822)
        (root / "etc/lab.list").write_text(lines)
        settings = {
            "APT::Architecture": arch, "Dir::State": root, "Dir::State::lists": root / "lists", "Dir::State::status": root / "status",
            "Dir::Cache": root / "cache", "Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": root / "etc",
            "Acquire::Languages": "none", "Acquire::Retries": 3, "APT::Sandbox::User": "root",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        }
        conf = "".join(f'{key} "{value}";\n' for key, value in settings.items())
        (root / "apt.conf").write_text(conf + f'APT::Architectures {{ "{arch}"; }};\n')
        self.env = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"}
        self.store = boards.CACHE / "deb"
        self.store.mkdir(exist_ok=True)

    def _run(self, *args, cwd=None):
        return subprocess.run(args, env=self.env, cwd=cwd, capture_output=True, text=True)

    def update(self):
        """Refreshes the index. An incomplete one may still hold the package, so this only says what is wrong."""
        done = self._run("apt-get", "-q", "update")
        bad = [l for l in (done.stdout + done.stderr).splitlines() if l.startswith(("E:", "W:"))]
        if bad:
            self.say(f"{self.arch}: index incomplete, going on with what is there: {bad[0][:160]}")

    def field(self, package, name):
        """A field of the newest version of a package, or None."""
        found = re.search(rf"^{name}: (.*)$", self._run("apt-cache", "show", "--no-all-versions", package).stdout, re.M)
        return found and found[1]

    def get(self, package):
        """Path of the .deb. A download that was cut short goes on where it stopped and is never taken for a whole one."""
        done = self._run("apt-get", "-qq", "download", "--print-uris", package)
        words = shlex.split(done.stdout)
        if done.returncode or len(words) < 4:
            raise LookupError(f"{package} ({self.arch}): {done.stderr.strip()[:200] or 'not in the signed index'}")
        name, size, (algorithm, _, digest) = words[1], int(words[2]), words[3].partition(":")
        path = self.store / name
        if path.exists() and path.stat().st_size == size:
            return path
        partial = self.store / "partial"
        partial.mkdir(exist_ok=True)
        self.say(f"download {name}, {size >> 10} KiB")
        done = self._run("apt-get", "-qq", "download", package, cwd=partial)
        if done.returncode:
            raise LookupError(f"download {name}: {done.stderr.strip()[:200]}")
        with open(partial / name, "rb") as f:
            if hashlib.file_digest(f, algorithm.lower()).hexdigest() != digest:
                raise LookupError(f"download {name}: {algorithm} differs from the signed index; run it again")
        os.replace(partial / name, path)
        return path


def unpack(deb, to):
    """Unpacks a .deb once."""
    mark = to / (".got-" + deb.name)
    if mark.exists():
        return
    to.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", str(deb), str(to)], check=True)
    mark.touch()
