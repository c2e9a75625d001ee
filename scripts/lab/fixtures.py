"""The fixture modules: kernel modules that Debian does not ship for ARM, built out of tree against its headers.

Our own are in kmod/. The others (gpio-sim, i2c-stub, the IIO dummy…) are cut out of Debian's linux-source at build time and
never enter this repository. A few need a change on the scratch copy; each change says why.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import time

import apt
import boards

SOURCES = {
    "gpio-sim.c": "drivers/gpio", "dev-sync-probe.c": "drivers/gpio", "dev-sync-probe.h": "drivers/gpio", "gpiolib.h": "drivers/gpio",
    "i2c-stub.c": "drivers/i2c", "irq_sim.c": "kernel/irq",
    "industrialio-sw-device.c": "drivers/iio", "industrialio-sw-trigger.c": "drivers/iio", "industrialio-configfs.c": "drivers/iio",
    "iio-trig-hrtimer.c": "drivers/iio/trigger", "iio-trig-sysfs.c": "drivers/iio/trigger",
    "iio_simple_dummy.c": "drivers/iio/dummy", "iio_simple_dummy.h": "drivers/iio/dummy", "iio_simple_dummy_events.c": "drivers/iio/dummy",
    "iio_simple_dummy_buffer.c": "drivers/iio/dummy", "iio_dummy_evgen.c": "drivers/iio/dummy", "iio_dummy_evgen.h": "drivers/iio/dummy",
}
OURS = ["lab_i2c", "lab_spi", "lab_pwm", "lab_w1", "lab_oops"]
LACKING = {  # what is built when the kernel's configuration does not have it
    "GPIO_SIM": ["gpio-sim"], "I2C_STUB": ["i2c-stub"], "IRQ_SIM": ["irq_sim"],
    "IIO_CONFIGFS": ["industrialio-configfs"], "IIO_SW_DEVICE": ["industrialio-sw-device"],
    "IIO_SW_TRIGGER": ["industrialio-sw-trigger", "iio-trig-hrtimer"], "IIO_SYSFS_TRIGGER": ["iio-trig-sysfs"],
    "IIO_SIMPLE_DUMMY": ["iio_dummy", "iio_dummy_evgen"],
}
KMOD = boards.HERE / "kmod"


def recipe():
    """A build made by another form of this file or of kmod/ is made anew."""
    files = [pathlib.Path(__file__), *sorted(KMOD.iterdir())]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def drivers(host, series, say):
    """Folder with only the driver files we need, cut out of linux-source-SERIES (150 MB of xz)."""
    deb = host.get(f"linux-source-{series}")
    out = boards.CACHE / "src" / deb.stem
    if (out / ".ok").exists():
        return out
    began, scratch = time.time(), out.with_suffix(".tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    apt.unpack(deb, scratch)
    archive = next(scratch.glob("usr/src/linux-source-*.tar.xz"))
    out.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["xz", "-dc", "-T0", str(archive)], stdout=subprocess.PIPE) as xz:
        # tar complains of names that a series lacks; what is needed and not there fails the build of its module
        subprocess.run(["tar", "-x", "-C", str(out), "--strip-components=1", "--wildcards", *sorted({f"*/{d}/{f}" for f, d in SOURCES.items()})],
                       stdin=xz.stdout, stderr=subprocess.DEVNULL)
    shutil.rmtree(scratch)
    (out / ".ok").touch()
    say(f"sources of {series} cut out in {time.time() - began:.0f} s")
    return out


def headers(board, version, foreign, host):
    """The kernel's header tree with its tools, usable where it stands."""
    deb = foreign.get(f"linux-headers-{version}")
    tree = boards.CACHE / "hdr" / version
    apt.unpack(deb, tree)
    needs = subprocess.check_output(["dpkg-deb", "-f", str(deb), "Depends"], text=True)
    for package in re.findall(r"linux-headers-\S+-common\S*|linux-kbuild-\S+", needs):
        apt.unpack(host.get(package.strip(",")), tree)
    makefile = tree / f"usr/src/linux-headers-{version}/Makefile"
    text = makefile.read_text()
    if " /usr/src/" in text:  # it includes the common part by an absolute path
        makefile.write_text(re.sub(r" /usr/(src|lib)/", rf" {tree}/usr/\1/", text))
    return tree


def scratch(version, source):
    """Folder with the sources as they are built."""
    work = boards.CACHE / "build" / version
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, folder in SOURCES.items():
        if not (source / folder / name).exists():
            continue
        text = (source / folder / name).read_text()
        # the 32-bit modpost of linux-kbuild-6.1 has a wrong size for these tables, and the lab needs no aliases
        (work / name).write_text(re.sub(r"^MODULE_DEVICE_TABLE\(.*\);$", "", text, flags=re.M))
    for file in KMOD.iterdir():
        shutil.copy(file, work)
    irq = work / "irq_sim.c"  # built-in code: irq_to_desc is not exported, and there is no licence tag
    irq.write_text(irq.read_text().replace("handle_simple_irq(irq_to_desc(irqnum))", "generic_handle_irq(irqnum)")
                   + '\n#include <linux/module.h>\nMODULE_LICENSE("GPL");\nMODULE_DESCRIPTION("irq_sim, lab build");\n')
    return work


def wanted(config, work):
    has = lambda option: re.search(rf"^CONFIG_{option}=[ym]", config, re.M)
    names = OURS + [m for option, modules in LACKING.items() if not has(option) for m in modules]
    if not has("IIO"):
        names = [m for m in names if "iio" not in m]
    if "gpio-sim" in names and (work / "dev-sync-probe.c").exists():
        names.append("dev-sync-probe")
    return [m for m in names if "industrialio" not in m or has("IIO")]


def build(board, version, foreign, host, out, say):
    """Builds what this kernel lacks into out. Returns what could not be built."""
    tree = headers(board, version, foreign, host)
    work = scratch(version, drivers(host, re.match(r"\d+\.\d+", version)[0], say))
    top = tree / f"usr/src/linux-headers-{version}"
    want = wanted((top / ".config").read_text(), work)
    (work / "lab-objs").write_text("obj-m := " + " ".join(m + ".o" for m in want) + "\n")
    modpost = next(tree.glob("usr/lib/linux-kbuild-*")) / f"scripts/mod/modpost.real-lsb-{board.modpost}"
    began = time.time()
    with open(work / "make.log", "w") as log:
        subprocess.run(["make", "-k", f"-j{os.cpu_count()}", "-C", str(top), f"M={work}", f"ARCH={board.karch}", f"CROSS_COMPILE={board.cross}",
                        "CONFIG_DEBUG_INFO_BTF_MODULES=", "CONFIG_MODULE_SIG_ALL=", f"MODPOST={modpost}", "modules"], stdout=log, stderr=log)
    made = list(work.glob("*.ko"))
    if made:
        subprocess.run([board.cross + "strip", "--strip-debug", *map(str, made)], check=True)
    out.mkdir(parents=True, exist_ok=True)
    for ko in made:
        shutil.copy(ko, out / (ko.name + ".new"))
        os.replace(out / (ko.name + ".new"), out / ko.name)
    say(f"{version}: {len(made)} fixture modules built in {time.time() - began:.0f} s")
    return sorted(set(want) - {ko.stem for ko in made})
