"""Builds Go programs and test binaries for a board. The one place that knows how C code is compiled for it."""
import os
import subprocess

import boards

TAGS = "netgo osusergo seccomp runc_nocriu nethttpomithttp2"


def environment(board, cgo=False):
    env = {**os.environ, "GOOS": "linux", "GOFLAGS": "", "CGO_ENABLED": "0", **board.go}
    if cgo:
        sysroot = subprocess.check_output(["scripts/sysroot", "--print", board.deb], text=True, cwd=boards.ROOT).strip()
        env |= {"CGO_ENABLED": "1", "CC": sysroot + "/cc", "PKG_CONFIG_LIBDIR": sysroot + "/lib", "PKG_CONFIG_PATH": "", "CGO_CFLAGS": "-O2", "CGO_LDFLAGS": "-O2"}
    return env


def _go(args, env):
    done = subprocess.run(["go", *args], env=env, cwd=boards.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise boards.Trouble(f"go {' '.join(args[:2])}: {done.stderr.strip() or done.stdout.strip()}", 1)
    return done.stdout


def packages(board, patterns):
    """[(import path, folder)] of the packages that have tests."""
    form = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}"
    lines = _go(["list", "-tags", TAGS, "-f", form, *patterns], environment(board, cgo=True)).split("\n")
    return [tuple(l.split("\t")) for l in lines if l]


def needs_c(board, package):
    """Whether something of ours below a package's tests holds C code; the standard library's own is switched off by tags."""
    form = "{{if and (not .Standard) .CgoFiles}}{{.ImportPath}}{{end}}"
    return bool(_go(["list", "-test", "-deps", "-tags", TAGS, "-f", form, package], environment(board, cgo=True)).strip())


def build(board, package, out, test=False):
    """A static binary of a command, or of a package's tests."""
    cgo = needs_c(board, package)
    link = "-s -w" + (" -linkmode external -extldflags -static" if cgo else "")
    verb = ["test", "-c"] if test else ["build"]
    _go([*verb, "-buildvcs=false", "-mod=readonly", "-tags", TAGS, "-ldflags", link, "-o", str(out), package], environment(board, cgo))


def device(board, out):
    """The product's own binary, as it is shipped."""
    done = subprocess.run(["scripts/device", board.target, str(out)], cwd=boards.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise boards.Trouble(f"scripts/device {board.target}: {done.stderr.strip()}", 1)
