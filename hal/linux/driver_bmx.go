package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Bosch's BMP280 and BME280 (BST-BMP280-DS001, BST-BME280-DS002): registers, and the compensation of section 8.1 in floating point.
const (
	bmxID       = 0xd0
	bmxCalib    = 0x88
	bmxCalibHum = 0xe1
	bmxCtrlHum  = 0xf2
	bmxStatus   = 0xf3
	bmxCtrl     = 0xf4
	bmxData     = 0xf7

	bmp280ID = 0x58
	bme280ID = 0x60
)

// bmx is a chip's calibration.
type bmx struct {
	_ noCompare
	t [3]float64
	p [9]float64
	h [6]float64 // nil numbers on a BMP280
}

func startBMX(b *chipBus, _ string) (sense, error) {
	var id [1]byte
	if err := b.read(bmxID, id[:]); err != nil {
		return nil, err
	}
	if id[0] != bmp280ID && id[0] != bme280ID {
		return nil, fmt.Errorf("the chip says %#02x, want %#02x or %#02x: %w", id[0], bmp280ID, bme280ID, unix.EPROTO)
	}
	humid := id[0] == bme280ID
	var c bmx
	if err := c.load(b, humid); err != nil {
		return nil, err
	}
	return func(_ int, into *readings) error {
		if humid {
			if err := b.write(bmxCtrlHum, 0x03); err != nil { // four samples each, here and below
				return err
			}
		}
		if err := b.write(bmxCtrl, 3<<5|3<<2|1); err != nil { // one conversion
			return err
		}
		var d [8]byte
		if err := b.wait(bmxStatus, d[:1], 0x08, 0); err != nil {
			return err
		}
		if err := b.read(bmxData, d[:]); err != nil { // a BMP280 has nothing in the last two
			return err
		}
		raw := func(at int) float64 { return float64(int32(d[at])<<12 | int32(d[at+1])<<4 | int32(d[at+2])>>4) }
		fine := c.fine(raw(3))
		into[0], into[1] = fine/5120, c.pressure(raw(0), fine)
		if humid {
			into[2] = c.humidity(float64(int(d[6])<<8|int(d[7])), fine)
		}
		return nil
	}, nil
}

func (c *bmx) load(b *chipBus, humid bool) error {
	var r [26]byte
	if err := b.read(bmxCalib, r[:]); err != nil {
		return err
	}
	number := func(nth int) float64 {
		v := s16le(r[2*nth:])
		if nth == 0 || nth == 3 { // T1 and P1 have no sign
			return float64(uint16(v))
		}
		return float64(v)
	}
	for i := range c.t {
		c.t[i] = number(i)
	}
	for i := range c.p {
		c.p[i] = number(3 + i)
	}
	if !humid {
		return nil
	}
	c.h[0] = float64(r[25])
	var h [7]byte
	if err := b.read(bmxCalibHum, h[:]); err != nil {
		return err
	}
	c.h[1], c.h[2], c.h[5] = float64(s16le(h[:])), float64(h[2]), float64(int8(h[6]))
	c.h[3] = float64(int16(int8(h[3]))<<4 | int16(h[4]&0x0f))
	c.h[4] = float64(int16(int8(h[5]))<<4 | int16(h[4]>>4))
	return nil
}

// fine is 5120 times the temperature in °C.
func (c *bmx) fine(raw float64) float64 {
	a := (raw/16384 - c.t[0]/1024) * c.t[1]
	d := raw/131072 - c.t[0]/8192
	return a + d*d*c.t[2]
}

// pressure is in Pa.
func (c *bmx) pressure(raw, fine float64) float64 {
	a := fine/2 - 64000
	b := a*a*c.p[5]/32768 + a*c.p[4]*2
	b = b/4 + c.p[3]*65536
	a = (1 + (c.p[2]*a*a/524288+c.p[1]*a)/524288/32768) * c.p[0]
	if a == 0 { // a chip without calibration
		return 0
	}
	v := (1048576 - raw - b/4096) * 6250 / a
	return v + (c.p[8]*v*v/2147483648+v*c.p[7]/32768+c.p[6])/16
}

// humidity is in percent.
func (c *bmx) humidity(raw, fine float64) float64 {
	v := fine - 76800
	v = (raw - (c.h[3]*64 + c.h[4]/16384*v)) * (c.h[1] / 65536 * (1 + c.h[5]/67108864*v*(1+c.h[2]/67108864*v)))
	return min(max(v*(1-c.h[0]*v/524288), 0), 100)
}
