package linux

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sandpiper-edge/sandpiper/hal"
)

// Kind is the contract's word for what a resource is, and with that what Open returns.
type Kind = hal.Kind

// The kinds that the kernel has something for.
const (
	KindLine   = hal.KindLine
	KindPWM    = hal.KindPWM
	KindLED    = hal.KindLED
	KindI2C    = hal.KindI2C
	KindSPI    = hal.KindSPI
	KindSerial = hal.KindSerial
	KindModbus = hal.KindModbus
	KindCAN    = hal.KindCAN
	KindSensor = hal.KindSensor
)

// Capturer is a hal.Sensor that the kernel can read by itself at each beat of a trigger; Read answers busy meanwhile.
type Capturer interface {
	// Capture starts with a trigger by its name, "" for the one that is set, and room for length samples.
	Capture(trigger string, length int) (SampleReader, error)
}

// SampleReader gives the samples in their order. Read waits for at least one; it ends with os.ErrClosed after Close.
type SampleReader interface {
	Read() ([]Sample, error)
	Close() error
}

// Sample is a number as a sensor's Read gives it, at a moment of CLOCK_MONOTONIC in ns; 0 when the driver tells no time.
type Sample struct {
	Value float64
	Mono  int64
}

// MakeSafe performs a safe action on a copy of a hal.Holder's descriptor: all that a keeper has to know of an output.
func MakeSafe(fd int, a hal.SafeAction) error {
	if len(a.Bytes) > 0 {
		_, err := unix.Pwrite(fd, a.Bytes, 0)
		if errors.Is(err, unix.ESPIPE) { // a device without offsets
			_, err = unix.Write(fd, a.Bytes)
		}
		return err
	}
	v := gpioValues{bits: a.Bits, mask: a.Mask}
	if !a.Set || v.mask == 0 {
		return nil
	}
	return ioctl(fd, gpioSetValues, unsafe.Pointer(&v))
}

// noCompare in a struct says that its values are not compared with each other as wholes: the compiler then writes no function for it.
type noCompare [0]func()
