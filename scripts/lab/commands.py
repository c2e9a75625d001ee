"""The verbs of the lab's command line."""
import argparse
import os
import shlex
import shutil
import signal
import sys
import termios
import time
import tty

import agentverbs
import boards
import disk
import echo
import kernels
import machine
import output
import powercut
import report
import reset
import scratch
import selftest
import suite

ALL = ["arm64", "arm64-61", "armv7-61", "raspi3b", "armv6"]
BOARD_TESTS = ["./scripts/lab/smoke", "./hal/linux"]  # what only a board can show
ROOMS = ["./store", "./sandbox/container", "./sandbox/network", "./sandbox/quota", "./agent/mqtt", "./agent/iothub", "./agent/message", "./agent/twin", "./agent/route", "./agent/deployment",
         "./agent/supervisor", "./hal"]
CUT_ON = ["arm64", "armv7-61"]  # the power is cut on one board of each word size
ROOMS_ON = ["arm64", "armv7-61"]  # one board of each word size


def words(variable, default):
    text = os.environ.get(variable, "").split()
    return ALL if text == ["all"] else text or default


def run(args):
    names = args.board or words("LAB_BOARDS", ALL)
    for name in names:
        boards.board(name)  # an unknown one is refused before anything is done
    need_qemu(names)
    missing = kernels.fetch(names, refresh=False)
    reports, kills = [], os.environ.get("LAB_TEST_KILLS")  # of an agent whose relay is high, one by one: 200 take minutes
    with echo.Echo() as host:
        os.environ["LAB_TEST_HOST"] = host
        for name in names:
            if name in missing:
                reports.append(suite.Report(name, unavailable=missing[name]))
                continue
            packages = words("LAB_PKGS", BOARD_TESTS + (ROOMS if name in ROOMS_ON else []))
            options = machine.Options()
            if "LAB_TIMEOUT" not in os.environ:
                options.timeout = 3600 if len(packages) > 2 else 900
            os.environ["LAB_TEST_KILLS"] = kills or ("20" if name in ROOMS_ON else "5")
            with disk.Scratch() as options.disk:  # one for each: what a board that died leaves on it is not the next one's
                one = suite.run(boards.board(name), packages, os.environ.get("LAB_RUN"), options, always="/scripts/lab/smoke")
            report.progress(one)
            reports.append(one)
    return report.show(reports)


def smoke(args):
    """One board within 90 s, or one loud line why not."""
    name = "arm64"
    why = None
    if not shutil.which(boards.board(name).qemu[0]):
        why = "qemu-system-arm is not installed; `make setup` installs it"
    elif not kernels.complete(boards.board(name)):
        why = f"no kernel of it in {boards.CACHE}; `make lab-fetch LAB_BOARDS={name}` brings it"
    if why:
        print(f"lab: THE SMOKE TEST ON A VIRTUAL BOARD DID NOT RUN: {why}")
        return 0
    os.environ.setdefault("LAB_PKGS", "./scripts/lab/smoke")
    began = time.time()
    code = run(argparse.Namespace(board=[name]))
    print(f"lab: smoke took {time.time() - began:.0f} s")
    return code


def test(args):
    board = boards.board(args.board_name)
    need_qemu([board.name])
    if args.slots and args.disk:
        raise boards.Trouble("-slots makes a disk of its own; leave out -disk")
    with echo.Echo() as host, disk.Scratch(slots=args.slots) as image:
        options = machine.Options(disk=args.disk or image, data=disk.partition(board, 3) if args.slots else None)
        os.environ["LAB_TEST_HOST"] = host
        one = suite.run(board, args.package, args.pattern, options, shlex.join(args.rest), live=args.v)
    for o in one.outcomes:
        if not args.v and not o.ok:
            print(o.text.rstrip())
        for name, reason in o.skipped.items():
            print(f"      SKIPPED {name}: {reason}")
        print(o.line())
    death = suite.explain(one)
    if death:
        print(death, file=sys.stderr)
    print(f"lab: {board.name} {one.kernel}: build {one.build_seconds} s, ready after {one.run.marks.get('ready')} s, run {one.run.seconds} s", file=sys.stderr)
    return report.exit_code([one])


def execute(args):
    board = boards.board(args.board_name)
    files = {"bin": args.program}
    if os.path.isdir("testdata"):
        files["cwd/testdata"] = "testdata"
    job = machine.Job("program", suite.exports() + f"J=$(dirname $0); chmod 755 $J/bin; exec $J/bin {shlex.join(args.rest)}\n", files)
    boot = machine.Machine(board, [job], machine.Options(disk=args.disk))
    boot.on_output = output.Live(boot.tag, board.virtio, lambda b: (sys.stdout.buffer.write(b), sys.stdout.flush()))
    done = boot.start().wait()
    if done.failure:
        print(suite.explain(suite.Report(board.name, run=done)), file=sys.stderr)
        return report.DIED
    shutil.rmtree(done.log)
    return done.jobs["program"][0]


def shell(args):
    board = boards.board(args.board_name)
    need_qemu([board.name])
    terminal = sys.stdin.isatty()
    job = machine.Job("shell", f"stty -F /dev/{board.console} sane 2>/dev/null; exec setsid sh -c 'exec sh -i </dev/{board.console} >/dev/{board.console} 2>&1'\n")
    boot = machine.Machine(board, [job], machine.Options(console=True, timeout=int(os.environ.get("LAB_TIMEOUT") or 86400), disk=args.disk))
    ready = lambda word, rest: word == "begin" and print(f"lab: {board.name}, kernel {board.kernel}: a shell; `exit` powers the board off", file=sys.stderr)
    boot.on_mark = ready
    saved = termios.tcgetattr(0) if terminal else None
    boot.start()
    try:
        if terminal:
            tty.setraw(0)
        boot.type(0)
    finally:
        if saved:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
    done = boot.wait()
    if not done.failure:
        shutil.rmtree(done.log)
    return 0 if done.done else report.DIED


def fetch(args):
    missing = kernels.fetch(args.board or words("LAB_BOARDS", ALL), refresh=True)
    return report.UNAVAILABLE if missing and os.environ.get("LAB_ALLOW_MISSING") != "1" else 0


def cut_power(args):
    if args.again:
        bad = powercut.again(args.again)
        print(f"lab: {args.again}: {bad or 'nothing lost'}")
        return report.FAILED if bad else report.PASSED
    names = args.board or words("LAB_BOARDS", CUT_ON)
    need_qemu(names)
    missing = kernels.fetch(names, refresh=False)
    there = [n for n in names if n not in missing]
    rows = powercut.run(there, number("LAB_CUTS", 10), os.environ.get("LAB_SEED") or "1")
    rows += [{"board": n, "unavailable": why} for n, why in missing.items()]
    return report.show_cuts(rows)


def resets(args):
    names = args.board or words("LAB_BOARDS", ALL)
    need_qemu(names)
    missing = kernels.fetch(names, refresh=False)
    results = []
    for name in names:
        if name not in missing:
            results.append(reset.run(name))
            reset.show(results[-1])
    passed, failed = sum(r.ok for r in results), sum(not r.ok for r in results)
    for name, why in missing.items():
        print(f"{name}: UNAVAILABLE: {why}")
    print(f"lab: resets on {len(results)} boards: {passed} passed, {failed} failed")
    if failed:
        return report.DIED if any(r.died for r in results) else report.FAILED
    return report.UNAVAILABLE if missing and os.environ.get("LAB_ALLOW_MISSING") != "1" else report.PASSED


def test_itself(args):
    need_qemu([args.board_name])
    if kernels.fetch([args.board_name], refresh=False):
        return report.UNAVAILABLE
    return selftest.run(args.board_name, args.only)


def number(variable, default):
    """A count of at least 1 from the environment."""
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise boards.Trouble(f"{variable} is {text!r}: it must be a number of at least 1")
    return int(text)


def show_boards(_):
    for name, board in boards.all_boards().items():
        print(f"{name:10} {board.kernel or 'not fetched'}")
    return 0


def need_qemu(names):
    for name in names:
        program = boards.board(name).qemu[0]
        if not shutil.which(program):
            raise boards.Trouble(f"{program} is not installed; run: make setup")


def interrupt(*_):
    """Ends as Ctrl-C does: boards are switched off and temporary files removed on the way out, and no second one disturbs that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(doc, argv):
    p = argparse.ArgumentParser(prog="lab", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, act):
        v = verbs.add_parser(name)
        v.set_defaults(act=act)
        return v

    for name, act in (("run", run), ("fetch", fetch)):
        verb(name, act).add_argument("board", nargs="*")
    verb("smoke", smoke)
    verb("reset", resets).add_argument("board", nargs="*")
    v = verb("selftest", test_itself)
    v.add_argument("board_name", metavar="BOARD", nargs="?", default="arm64")
    v.add_argument("only", nargs="*", metavar="TEST", help="a test of scripts/lab/selftest")
    v = verb("powercut", cut_power)
    v.add_argument("board", nargs="*")
    v.add_argument("-again", help="a folder that an earlier run kept: its disk is checked once more")
    verb("boards", show_boards)
    v = verb("test", test)
    v.add_argument("package", nargs="+")
    v.add_argument("-run", dest="pattern")
    v.add_argument("-board", dest="board_name", default="arm64")
    v.add_argument("-v", action="store_true", help="the tests' own output, as it comes")
    v.add_argument("-disk", help="an ext4 image that becomes /data; default: one that is made and removed")
    v.add_argument("-slots", action="store_true", help="a disk with two system slots (partitions 1 and 2), and /data on the third")
    v.add_argument("-args", dest="rest", nargs=argparse.REMAINDER, default=[], help="arguments of the test binary, such as -test.short")
    for name, act in (("exec", execute), ("shell", shell)):
        v = verb(name, act)
        v.add_argument("-disk")
        v.add_argument("board_name", metavar="BOARD")
        if name == "exec":
            v.add_argument("program")
            v.add_argument("rest", nargs=argparse.REMAINDER)
    agentverbs.add(verb)
    args = p.parse_args(argv)
    if args.verb not in ("exec", "agent"):  # its program is named from where the caller stands
        os.chdir(boards.ROOT)
    signal.signal(signal.SIGTERM, interrupt)
    if left := scratch.sweep():
        print(f"lab: removed {len(left)} folders of runs that were killed", file=sys.stderr)
    try:
        return args.act(args)
    except boards.Trouble as trouble:
        print("lab:", trouble, file=sys.stderr)
        return trouble.code
    except KeyboardInterrupt:
        return 130
