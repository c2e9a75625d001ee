"""The verbs about the product on a board: agent, on, job."""
import json
import os
import shlex
import signal
import subprocess
import sys

import boards
import footprint
import hub
import mainjob
import service

RUNNING = boards.RESULTS / "agents"  # BOARD.json while `lab agent BOARD` runs


def agent(args):
    """Runs the agent on a board until interrupted, or as long as a command of the caller runs."""
    board = boards.board(args.board_name)
    extra = open(args.config).read() if args.config else ""
    with hub.Hub() as to:
        device = service.Service(board, to, follow=args.follow, extra="\n" + extra, image=args.disk, limit=86400, on_output=None if args.command else show)
        state = RUNNING / f"{board.name}.json"
        try:
            device.boot()
            status = device.answers()
            env = {"LAB_HUB": to.dir, "LAB_HUB_LOG": to.folder / "hub.log", "LAB_BUNDLES": to.bundles, "LAB_KEY": to.folder / "release.key", "LAB_DEVICE": hub.DEVICE,
                   "LAB_BOARD": board.name, "LAB_BOARD_MQTT": f"127.0.0.1:{device.mqtt}", "LAB_HUB_HTTPS": f"{hub.HOST}:{to.https}"}
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(json.dumps({"remote": device.remote}))
            if args.command:
                return subprocess.run(args.command, env={**os.environ, **{k: str(v) for k, v in env.items()}}).returncode
            print(f"lab: {board.name}: agent {status['version']} answers as {hub.DEVICE} of {hub.HOST}\n"
                  f"  hub    build/sandpiper-hub --dir {to.dir} device list\n"
                  f"  board  scripts/lab/lab on {board.name} sandpiper status\n"
                  f"  MQTT   127.0.0.1:{device.mqtt} on the host is the board's 8883\n"
                  f"  bundles in {to.bundles} are at https://{hub.HOST}:{to.https}/bundles/, their key is {to.folder}/release.key\n"
                  "  interrupt stops it", flush=True)
            while True:
                signal.pause() if device.machine.process.poll() is None else device.alive()
        except KeyboardInterrupt:
            if state.exists():  # it answered: agent and modules are stopped as by a shutdown
                device.off()
            return 0
        finally:
            state.unlink(missing_ok=True)
            device.close()


def show(chunk):
    sys.stdout.buffer.write(chunk)
    sys.stdout.flush()


def on(args):
    """One command on a board that runs an agent; output and exit code as if local."""
    try:
        remote = json.loads((RUNNING / f"{args.board_name}.json").read_text())["remote"]
    except FileNotFoundError:
        raise boards.Trouble(f"no agent runs on {args.board_name}; start one: scripts/lab/lab agent {args.board_name}") from None
    code, text = service.ask(remote, shlex.join(args.command), 3600)
    sys.stdout.write(text)
    return code


def job(args):
    names = args.board or os.environ.get("LAB_BOARDS", "").split() or ["arm64", "armv7-61"]
    for name in names:
        boards.board(name).need()
    return mainjob.main(names, args.control)


def memory(args):
    return footprint.main(args.board or ["armv7-61"])


def add(verb):
    v = verb("agent", agent)
    v.add_argument("board_name", metavar="BOARD")
    v.add_argument("-config", help="TOML tables to add to the agent's configuration")
    v.add_argument("-follow", action="append", default=[], help="a module whose output is shown, once for each")
    v.add_argument("-disk", help="an ext4 image that becomes /data; default: one that is made and removed")
    v.add_argument("command", nargs="*", help="run this on the host, with LAB_HUB, LAB_BUNDLES and so on, and end with it; after --")
    v = verb("on", on)
    v.add_argument("board_name", metavar="BOARD")
    v.add_argument("command", nargs="...")
    verb("memory", memory).add_argument("board", nargs="*")
    v = verb("job", job)
    v.add_argument("-control", action="store_true", help="only the control, in which messages must be lost")
    v.add_argument("board", nargs="*")
