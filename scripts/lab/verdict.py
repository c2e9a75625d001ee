"""What became of a boot, from its console: the first thing that went wrong, in words, and the last lines to show."""
import re

DEADLY = [
    (re.compile(rb"Kernel panic - not syncing: (.*)"), "kernel panic"),
    (re.compile(rb"Internal error: (.*)"), "kernel oops"),
    (re.compile(rb"(Unable to handle kernel .*)"), "kernel oops"),
    (re.compile(rb"(kernel BUG at .*)"), "kernel oops"),
    (re.compile(rb"Out of memory: (.*)"), "out of memory"),  # of the whole machine; a cgroup's own is "Memory cgroup out of memory"
]


def death(line):
    """What a console line says went wrong, or None."""
    for pattern, kind in DEADLY:
        found = pattern.search(line)
        if found:
            return f"{kind}: {found[1].decode(errors='replace').strip()}"
    return None


def judge(run):
    """Why a run is a failure whatever its jobs say, or None. run is a machine.Run."""
    deaths = sorted(run.deaths, key=lambda d: not d.startswith("kernel panic"))  # the oops before a panic is its cause, the panic its end
    if deaths:
        return deaths[0]
    if run.broken:
        return run.broken
    if run.timed_out:
        where = f"in {run.current}" if run.current else "while booting" if "ready" not in run.marks else "after its jobs"
        return f"hang: no end {where} within {run.limit} s"
    if not run.done and not run.ended_on_purpose:
        return f"QEMU ended with {run.qemu_code}: {run.qemu_error or 'nothing on its standard error'}"
    return None


def tail(console, lines=15):
    """The last lines of a console log."""
    text = console.read_text(errors="replace").replace("\r", "")
    return "\n".join("    " + l for l in text.rstrip().split("\n")[-lines:])
