"""The table at the end, build/lab/results.json, and the exit code that says the worst that happened."""
import json
import os

import boards
import suite

PASSED, FAILED, UNAVAILABLE, DIED = 0, 1, 3, 4


def counts(reports):
    outcomes = [o for r in reports for o in r.outcomes]
    failed = sum(len(o.failed) or (not o.ok) for o in outcomes) + sum(bool(r.failure) and not r.outcomes for r in reports)
    return sum(len(o.passed) for o in outcomes), failed, sum(len(o.skipped) for o in outcomes)


def board_lines(report):
    """What a person must know of a board: kernel, CPU, what is real, emulated, missing."""
    b = boards.board(report.board)
    if report.unavailable:
        return [f"{report.board}: UNAVAILABLE: {report.unavailable}"]
    facts = report.run.facts
    lines = [f"{report.board}: kernel {report.kernel}, CPU {facts.get('cpu', '').strip() or 'unknown'} (QEMU, TCG)",
             f"  real: {b.real}", f"  emulated: {b.emulated}",
             f"  missing: {b.missing}" + (f"; kernel modules {facts['lacks']}" if facts.get("lacks") else "")]
    return lines + [f"  warning: {w}" for w in facts.get("warnings", [])]


def show(reports):
    """Prints everything and returns the exit code."""
    print()
    for report in reports:
        print("\n".join(board_lines(report)))
    print(f"\n{'board':10} {'kernel':26} {'passed':>6} {'failed':>6} {'skipped':>7} {'ready':>6} {'seconds':>8}")
    for report in reports:
        if report.unavailable:
            print(f"{report.board:10} UNAVAILABLE")
            continue
        passed, failed, skipped = counts([report])
        print(f"{report.board:10} {report.kernel:26} {passed:6} {failed:6} {skipped:7} {report.run.marks.get('ready', 0):6} {report.run.seconds:8}")
    skips = {}
    for o in (o for r in reports for o in r.outcomes):
        for test, reason in o.skipped.items():
            skips.setdefault((o.package.rsplit("/", 2)[-2] + "/" + o.package.rsplit("/", 1)[-1], test, reason), []).append(o.board)
    for (package, test, reason), where in skips.items():
        print(f"SKIPPED on {' '.join(where)}: {package} {test}: {reason.split('SKIPPED: ')[-1]}")
    code = exit_code(reports)
    write(reports)
    passed, failed, skipped = counts(reports)
    if not passed and not failed and code == PASSED:
        print("lab: NO TEST RAN")
        code = FAILED
    cached = sum(o.cached for r in reports for o in r.outcomes)
    if cached:
        print(f"lab: {cached} packages are the same as when they passed and were not run again; LAB_FRESH=1 runs them")
    print(f"lab: {passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return code


def show_cuts(rows):
    """Prints what power cuts did, writes build/lab/powercut.json, and returns the exit code."""
    passed = failed = 0
    code = PASSED
    for r in rows:
        if r.get("unavailable"):
            print(f"{r['board']}: UNAVAILABLE: {r['unavailable']}")
            code = code or (PASSED if os.environ.get("LAB_ALLOW_MISSING") == "1" else UNAVAILABLE)
            continue
        bad = bool(r["failure"])
        print(f"{r['board']:10} {r['kernel']:26} seed {r['seed']}: {r['done']} of {r['cuts']} cuts without a loss, {r['promises']} promises, "
              f"{r['seconds'] / (r['done'] + 1):.1f} s a cut, control {'caught' if r['control'] is not None else 'NOT CAUGHT' if not bad or r['done'] == r['cuts'] else 'not run'}")
        passed, failed = passed + (not bad), failed + bad
        if bad:
            code = DIED if r["died"] else max(FAILED, code if code != UNAVAILABLE else FAILED)
    boards.RESULTS.mkdir(parents=True, exist_ok=True)
    (boards.RESULTS / "powercut.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"lab: power cuts on {len(rows)} boards: {passed} passed, {failed} failed", flush=True)
    return code


def exit_code(reports):
    if any(r.failure for r in reports):
        return DIED
    if any(not o.ok for r in reports for o in r.outcomes):
        return FAILED
    if any(r.unavailable for r in reports) and os.environ.get("LAB_ALLOW_MISSING") != "1":
        return UNAVAILABLE
    return PASSED


def write(reports):
    boards.RESULTS.mkdir(parents=True, exist_ok=True)
    rows = []
    for r in reports:
        row = {"board": r.board, "kernel": r.kernel, "unavailable": r.unavailable, "failure": r.failure}
        if r.run:
            row |= {"seconds": r.run.seconds, "marks": r.run.marks, "cpu": r.run.facts.get("cpu"), "buildSeconds": r.build_seconds}
        row["packages"] = [{"package": o.package, "ok": o.ok, "why": o.why, "seconds": o.seconds, "cached": o.cached, "passed": o.passed, "failed": o.failed, "skipped": o.skipped}
                           for o in r.outcomes]
        rows.append(row)
    (boards.RESULTS / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


def progress(report):
    """A line per package as soon as a board has ended; what failed shows its output."""
    for o in report.outcomes:
        if not o.ok and o.text:
            print(o.text.rstrip()[-6000:])
        print(o.line(), flush=True)
    death = suite.explain(report)
    if death:
        print(death, flush=True)
