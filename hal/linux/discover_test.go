package linux

import (
	"errors"
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// pi has what a board with two USB adapters of one kind shows.
func pi(t *testing.T) host {
	const (
		soc = "sys/devices/platform/soc/"
		usb = "sys/devices/platform/scb/1-1/"
	)
	return tree(t, map[string]string{
		soc + "fe804000.i2c/i2c-1/i2c-dev/i2c-1/name":     "bcm2835 (i2c@7e804000)\n",
		soc + "fe805000.i2c/i2c-2/i2c-dev/i2c-2/name":     "bcm2835 (i2c@7e805000)\n",
		soc + "fe204000.spi/spi0/spi0.1/modalias":         "spi:spidev\n",
		soc + "fe204000.spi/spi0/spi0.1/spidev/x":         "",
		usb + "1-1.3/idVendor":                            "0403\n",
		usb + "1-1.3/serial":                              "A1\n",
		usb + "1-1.3/1-1.3:1.0/bInterfaceNumber":          "00\n",
		usb + "1-1.3/1-1.3:1.0/ttyUSB0/tty/ttyUSB0/dev":   "188:0\n",
		usb + "1-1.3/1-1.3:1.1/bInterfaceNumber":          "01\n",
		usb + "1-1.3/1-1.3:1.1/ttyUSB1/tty/ttyUSB1/dev":   "188:1\n",
		usb + "1-1.4/idVendor":                            "0403\n",
		usb + "1-1.4/serial":                              "B2\n",
		usb + "1-1.4/1-1.4:1.0/bInterfaceNumber":          "00\n",
		usb + "1-1.4/1-1.4:1.0/ttyUSB2/tty/ttyUSB2/dev":   "188:2\n",
		"sys/class/tty/tty0/dev":                          "4:0\n",
		"sys/class/tty/ttyS9/type":                        "0\n",
		"sys/firmware/devicetree/base/soc/i2c@7e804000/x": "",
	}, map[string]string{
		"sys/class/i2c-dev/i2c-1":                          soc + "fe804000.i2c/i2c-1/i2c-dev/i2c-1",
		"sys/class/i2c-dev/i2c-2":                          soc + "fe805000.i2c/i2c-2/i2c-dev/i2c-2",
		soc + "fe804000.i2c/i2c-1/i2c-dev/i2c-1/device":    soc + "fe804000.i2c/i2c-1",
		soc + "fe805000.i2c/i2c-2/i2c-dev/i2c-2/device":    soc + "fe805000.i2c/i2c-2",
		soc + "fe804000.i2c/subsystem":                     "sys/bus/platform",
		soc + "fe805000.i2c/subsystem":                     "sys/bus/platform",
		soc + "fe804000.i2c/of_node":                       "sys/firmware/devicetree/base/soc/i2c@7e804000",
		"sys/class/spidev/spidev0.1":                       soc + "fe204000.spi/spi0/spi0.1/spidev",
		soc + "fe204000.spi/spi0/spi0.1/spidev/device":     soc + "fe204000.spi/spi0/spi0.1",
		soc + "fe204000.spi/subsystem":                     "sys/bus/platform",
		"sys/class/tty/ttyUSB0":                            usb + "1-1.3/1-1.3:1.0/ttyUSB0/tty/ttyUSB0",
		"sys/class/tty/ttyUSB1":                            usb + "1-1.3/1-1.3:1.1/ttyUSB1/tty/ttyUSB1",
		"sys/class/tty/ttyUSB2":                            usb + "1-1.4/1-1.4:1.0/ttyUSB2/tty/ttyUSB2",
		usb + "1-1.3/1-1.3:1.0/ttyUSB0/tty/ttyUSB0/device": usb + "1-1.3/1-1.3:1.0/ttyUSB0",
		usb + "1-1.3/1-1.3:1.1/ttyUSB1/tty/ttyUSB1/device": usb + "1-1.3/1-1.3:1.1/ttyUSB1",
		usb + "1-1.4/1-1.4:1.0/ttyUSB2/tty/ttyUSB2/device": usb + "1-1.4/1-1.4:1.0/ttyUSB2",
	})
}

func TestI2CAdapterIsFoundByEachNameThatStays(t *testing.T) {
	t.Parallel()
	h := pi(t)
	for _, c := range []struct{ name, path string }{
		{name: "i2c@7e804000"}, {name: "bcm2835 (i2c@7e804000)"}, {name: "platform-fe804000.i2c"}, {name: "fe804000.i2c"},
		{path: "platform-fe804000.i2c"}, {path: "fe804000.i2c"}, {path: "/dev/i2c-1"}, {name: "i2c@7e804000", path: "fe804000.i2c"},
	} {
		if a, err := h.findAdapter(c.name, c.path); err != nil || a.n != 1 {
			t.Errorf("%+v: got adapter %d, %v, want 1", c, a.n, err)
		}
	}
	if a, err := h.findAdapter("i2c@7e805000", ""); err != nil || a.n != 2 {
		t.Errorf("a name in parentheses, without a device tree: got %d, %v, want 2", a.n, err)
	}
	if _, err := h.findAdapter("", "fe804000"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "i2c@7e804000 (platform-fe804000.i2c)") {
		t.Errorf("half a name: got %v, want the choices", err)
	}
	if _, err := h.findAdapter("i2c@7e804000", "fe805000.i2c"); err == nil {
		t.Error("a name and the path of another adapter fit")
	}
}

func TestSPIDeviceIsFoundByItsControllerAndChipSelect(t *testing.T) {
	t.Parallel()
	h := pi(t)
	if d, err := h.findSPI("fe204000.spi", "", 1); err != nil || !strings.HasSuffix(d.node, "spidev0.1") {
		t.Errorf("got %+v, %v, want spidev0.1", d, err)
	}
	if _, err := h.findSPI("fe204000.spi", "", 0); err == nil {
		t.Error("a chip select without a device fits")
	}
	if d, err := h.findSPI("", "/dev/spidev0.1", 0); err != nil || d.n != 1 {
		t.Errorf("by node: got %+v, %v", d, err)
	}
}

func TestSerialAdaptersOfOneKindAreToldApartByPortAndNumber(t *testing.T) {
	t.Parallel()
	h := pi(t)
	for name, c := range map[string]struct{ path, port, serial, want string }{
		"port":            {port: "1-1.4", want: "ttyUSB2"},
		"interface":       {port: "1-1.3:1.1", want: "ttyUSB1"},
		"serial number":   {serial: "B2", want: "ttyUSB2"},
		"both":            {port: "1-1.3:1.0", serial: "A1", want: "ttyUSB0"},
		"the owner's own": {path: "/dev/serial/by-path/x", want: "x"},
	} {
		if d, err := h.findTTY(&hal.SerialPart{Path: c.path, USB: hal.USBPort{Port: c.port, Serial: c.serial}}); err != nil || !strings.HasSuffix(d.node, "/"+c.want) {
			t.Errorf("%s: got %s, %v, want %s", name, d.node, err, c.want)
		}
	}
	if _, err := h.findTTY(&hal.SerialPart{USB: hal.USBPort{Port: "1-1.3"}}); !errors.Is(err, ErrAmbiguous) || !strings.Contains(err.Error(), "1-1.3:1.0, 1-1.3:1.1") {
		t.Errorf("an adapter with two ports: got %v, want both interfaces", err)
	}
	if _, err := h.findTTY(&hal.SerialPart{USB: hal.USBPort{Serial: "C3"}}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"C3"`) {
		t.Errorf("got %v, want the number that was asked for", err)
	}
	if list := h.ttys(); len(list) != 3 {
		t.Errorf("got %d ports, want three: a console and an empty place are none", len(list))
	}
}

func FuzzSysfsNumber(f *testing.F) {
	for _, s := range []string{"21500\n", "-4000", " 0.009806 ", "1e9", "", "nan", "0x10", "1_000", "inf", "+-3", "9999999999999999999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := number(s)
		if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Fatalf("%q passed as %v", s, v)
		}
	})
}
