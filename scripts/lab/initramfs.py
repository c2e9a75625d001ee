"""The base initramfs of a board: busybox, bash, mkfs.ext4, guest/init, and kernel modules with what they depend on.

A run appends a second archive with its programs: the kernel reads both, on every board, without a driver.
"""
import lzma
import os
import pathlib

import boards
import cpio

APPLETS = """sh ash mount umount insmod rmmod lsmod modprobe cat echo ls mkdir rmdir sleep poweroff reboot halt dmesg uname ip ifconfig route ping grep
egrep sed awk head tail dd sync find wc mdev df du free switch_root pivot_root tr cut date kill killall ps mknod id hostname true false rm cp mv ln
chmod chown seq stat od hexdump test [ env printf expr xargs sort uniq losetup blockdev tar base64 gzip gunzip sha256sum md5sum stty touch tee nc
wget vi less top setsid nohup timeout chroot unshare nsenter mkfifo mke2fs basename dirname readlink realpath dnsdomainname which mountpoint
pidof i2cdetect i2cget i2cset devmem watchdog cmp diff usleep cttyhack""".split()

COMMON = """ext4 overlay loop squashfs erofs configfs crc32c_generic dm_mod dm_verity dm_flakey dm_log_writes dm_snapshot null_blk gpio_sim i2c_dev
i2c_stub lab_i2c lab_spi lab_pwm lab_w1 lab_oops spidev lm75 at24 iio_dummy iio_dummy_evgen iio_trig_hrtimer iio_trig_sysfs w1_gpio w1_therm softdog vcan can can_raw
can_isotp tun veth bridge dummy nf_tables nft_masq nft_ct nft_nat nft_chain_nat nft_reject_inet nft_fib_ipv4
sch_netem macvlan quota_v2 tpm_vtpm_proxy leds_gpio
ledtrig_timer uinput zram""".split()
VIRT = "virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio_rng i6300esb rtc_pl031 configfs 9pnet_virtio 9p".split()
PI = """bcm2835_wdt i2c_bcm2835 spi_bcm2835 spi_bcm2835aux bcm2835_rng raspberrypi_hwmon sdhci_iproc bcm2835 mmc_block dwc2 usbnet cdc_ether rndis_host
usb_storage sd_mod uas pwm_bcm2835 bcm2835_thermal raspberrypi_gpiomem gpio_raspberrypi_exp phy_generic configfs""".split()


def plain(name):
    return name.replace("-", "_")


class Modules:
    """The modules of a board that go into its initramfs, each behind what it needs."""

    def __init__(self, board):
        self.path, self.builtin = {}, set()
        for root, _, files in os.walk((board.dir / "modules").resolve() / "kernel"):
            self.path.update({plain(f.split(".ko")[0]): pathlib.Path(root, f) for f in files if ".ko" in f})
        for ko in (board.dir / "extra").glob("*.ko"):
            self.path.setdefault(plain(ko.stem), ko)
        self.builtin = {plain(pathlib.Path(l).name.removesuffix(".ko")) for l in (board.dir / "modules/modules.builtin").read_text().split()}
        self.order, self.data, self.info, self.missing = [], {}, {}, []

    def add(self, name):
        name = plain(name)
        if name in self.data:
            return
        if name not in self.path:
            if name not in self.builtin:
                self.missing.append(name)
            return
        raw = self.path[name].read_bytes()
        self.data[name] = lzma.decompress(raw) if self.path[name].suffix == ".xz" else raw
        info = self.info[name] = cpio.modinfo(self.data[name])
        soft = [plain(m) for line in info.get("softdep", []) if "pre:" in line for m in line.split("pre:")[1].split("post:")[0].split()]
        info["needs"] = [plain(m) for m in info.get("depends", [""])[0].split(",") if m]
        info["needs"] += [m for m in soft if m in self.path]  # a softdep may be an alias, which is nobody's file
        for other in info["needs"]:
            self.add(other)
        self.order.append(name)

    def closure(self, name, seen):
        for other in self.info[name]["needs"]:
            if other in self.data and other not in seen:
                seen.append(other)
                self.closure(other, seen)
        return seen

    def dep(self, name):
        """Its line of modules.dep."""
        needs = sorted(self.closure(name, []), key=self.order.index, reverse=True)
        return f"{name}.ko:" + "".join(f" {n}.ko" for n in needs)


def base(board):
    """Path of the board's base archive; made anew when its kernel, its modules or anything here changed."""
    out = board.dir / "initramfs.cpio"
    sources = [boards.HERE / n for n in ("guest/init", "initramfs.py", "cpio.py")] + [board.dir / "kver", board.dir / "extra/."]
    if out.exists() and all(os.path.getmtime(s) <= os.path.getmtime(out) for s in sources):
        return out
    fresh = out.with_suffix(f".{os.getpid()}")
    write(board, fresh)
    os.replace(fresh, out)
    return out


def write(board, path):
    modules, early = Modules(board), VIRT if board.virtio else PI
    for name in COMMON + early:
        modules.add(name)
    tree = f"lib/modules/{board.kernel}"
    with cpio.Archive(path) as a:
        for folder in "dev proc sys bin sbin lib tmp mnt run etc root lab/jobs".split():
            a.folder(folder)
        for name, device in {"console": (5, 1), "null": (1, 3), "kmsg": (1, 11)}.items():
            a.entry("dev/" + name, 0o20600, b"", device)
        a.copy("bin/busybox", (board.dir / "busybox").resolve())
        for applet in APPLETS:
            a.link("bin/" + applet, "busybox")
        a.copy("bin/bash", (board.dir / "bash").resolve())
        a.link("sbin/modprobe", "../bin/busybox")
        a.copy("lab/e2fs", (board.dir / "e2fs").resolve())
        for name, tool in {"mkfs.ext4": b"mke2fs -t ext4", "e2fsck": b"e2fsck"}.items():
            a.entry("sbin/" + name, 0o100755, b'#!/bin/sh\nexec /lab/e2fs/ld.so --library-path /lab/e2fs /lab/e2fs/' + tool + b' "$@"\n')
        a.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        a.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        a.text("etc/hosts", "127.0.0.1 localhost\n10.0.2.2 host hub.sandpiper.test\n")
        for name in modules.order:
            a.entry(f"{tree}/{name}.ko", 0o100644, modules.data[name])
        a.text(f"{tree}/modules.dep", "".join(modules.dep(n) + "\n" for n in modules.order))
        a.text(f"{tree}/modules.alias", "".join(f"alias {v} {n}\n" for n in modules.order for v in modules.info[n].get("alias", [])))
        a.copy(f"{tree}/modules.builtin", (board.dir / "modules/modules.builtin").resolve())
        a.text("lab/boot-mods", " ".join(m for m in map(plain, early) if m in modules.data) + "\n")
        a.text("lab/missing-mods", " ".join(modules.missing) + "\n")
        a.copy("init", boards.HERE / "guest/init")
