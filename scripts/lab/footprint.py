"""What warden and agent take of a board's memory with the demo's four modules, beside the figure of this machine."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import boards
import hub
import mainjob
import service
import userland

SOURCE = boards.ROOT / "scripts/demo/modules"
SDK = boards.ROOT / "build/sdk"
VIEW = ["--host-view"]


def npm(names, to):
    """Copies packages of build/sdk/node and what they depend on, as the demo does."""
    at, done, names = SDK / "node/node_modules", set(), list(names)
    while names:
        name = names.pop()
        if name in done or not (at / name / "package.json").exists():
            continue  # inside the package that wants it, or optional here
        done.add(name)
        shutil.copytree(at / name, to / name)
        for manifest in [at / name / "package.json", *(at / name).glob("node_modules/*/package.json")]:
            said = json.loads(manifest.read_text())
            names += [*said.get("dependencies", {}), *said.get("optionalDependencies", {})]


def bundles(board, to, folder):
    """The demo's modules for a board: {name: module of the deployment}."""
    if not (SDK / "node/node_modules/azure-iot-device-mqtt").exists() or not (SDK / "python/azure").exists():
        raise boards.Trouble("the SDK packages of the demo are not in build/sdk; run: make setup")
    for name in ("shell", "javascript", "python"):
        shutil.copytree(SOURCE / name, folder / name)
    npm(["azure-iot-device", "azure-iot-device-mqtt"], folder / "javascript/node_modules")
    # what was compiled for this machine has a twin in Python
    shutil.copytree(SDK / "python", folder / "python/packages", ignore=shutil.ignore_patterns("*.so", "__pycache__", ".installed"))
    made = {
        "shell": ("native", [*VIEW, "--arg", "/bin/sh", "--arg", "/app/main.sh", folder / "shell"], None),
        "gauge": ("sandbox", ["--go", "./scripts/demo/modules/gauge"], None),
        "javascript": ("native", [*VIEW, "--arg", "/usr/bin/node", "--arg", "/app/main.js", folder / "javascript"], "256MiB"),
        "python": ("native", [*VIEW, "--arg", "/usr/bin/python3", "--arg", "-u", "--arg", "/app/main.py", "--env", "PYTHONPATH=/app/packages",
                              "--env", "PYTHONDONTWRITEBYTECODE=1", folder / "python"], None),
    }
    modules = {}
    for name, (kind, args, memory) in made.items():
        settings = {"image": to.bundle(board, name, *args)}
        if memory:
            settings["limits"] = {"memory": memory}
        modules[name] = {"type": kind, "settings": settings}
    return modules


class Heard:
    """Counts a hub's messages by module."""

    def __init__(self):
        self.count = {}

    def __call__(self, event):
        name = event.get("moduleId", "")
        self.count[name] = self.count.get(name, 0) + 1


def on_board(board, each=100):
    """{process: MiB} once every module of the demo has so many messages in the hub's log."""
    heard, extra = Heard(), ["-drive", f"file={userland.image(board)},format=raw,if=none,id=u,readonly=on", "-device", "virtio-blk-pci,drive=u"]
    with hub.Hub() as to:
        device = service.Service(board, to, prepare=userland.MOUNT, more=extra)
        try:
            to.follow(heard)
            device.boot().answers()
            modules = bundles(board, to, device.folder)
            to.deploy(modules, desired={"phase": "one"})
            service.until(900, f"{board.name}: {each} messages of each of {' '.join(modules)}",
                          lambda: all(heard.count.get(m, 0) >= each for m in modules), device.alive)
            warden_and_agent = mainjob.pss(device)
            detail = [m for m in device.status()["modules"]]
            device.off()
        except BaseException:
            device.close(keep=True)
            print(f"lab: {board.name}: messages so far: {heard.count}; logs in {boards.RESULTS}/runs", flush=True)
            raise
        device.close()
    return warden_and_agent, detail


def here():
    """The same of this machine: the demo measures it."""
    demo = subprocess.Popen(["go", "run", "./scripts/demo"], cwd=boards.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, "DEMO_OUTAGE": "5s"}, start_new_session=True)
    try:
        said, _ = demo.communicate()
    except BaseException:  # interrupted: go run passes no signal on, and the demo stops what it started
        os.killpg(demo.pid, signal.SIGTERM)
        demo.wait()
        raise
    found = re.search(r"memory \(PSS\) with (\d+) modules: agent ([0-9.]+) MiB \+ warden ([0-9.]+) MiB", said)
    if not found:
        raise boards.Trouble("the demo did not say what it weighs: " + said.strip()[-300:], 1)
    return int(found[1]), (float(found[2]), float(found[3]))


def main(names):
    rows, began = [], time.time()
    count, figures = here()
    rows.append((f"this machine ({os.uname().machine})", count, *figures))
    for name in names:
        figures, modules = on_board(boards.board(name).need())
        rows.append((f"{name} ({boards.board(name).target})", len(modules), *figures))
    print(f"lab: memory (PSS) of agent and warden with the demo's modules, {time.time() - began:.0f} s")
    for where, n, agent, warden in rows:
        print(f"  {where:26} {n} modules  agent {agent:5.1f} MiB  warden {warden:4.1f} MiB  together {agent + warden:5.1f} MiB")
    return 0
