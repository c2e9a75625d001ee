package linux

import (
	"testing"
	"unsafe"
)

// The kernel's structures, by the size of a pointer: GOARCH=386 and the 32-bit boards run the other column.
func TestKernelStructuresHaveTheKernelsSizes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ got, want32, want64 uintptr }{
		"gpiochip_info":                 {unsafe.Sizeof(gpioChipInfo{}), 68, 68},
		"gpio_v2_line_attribute":        {unsafe.Sizeof(gpioAttr{}), 16, 16},
		"gpio_v2_line_config_attribute": {unsafe.Sizeof(gpioConfigAttr{}), 24, 24},
		"gpio_v2_line_config":           {unsafe.Sizeof(gpioConfig{}), 272, 272},
		"gpio_v2_line_request":          {unsafe.Sizeof(gpioRequest{}), 592, 592},
		"gpio_v2_line_info":             {unsafe.Sizeof(gpioLineInfo{}), 256, 256},
		"gpio_v2_line_values":           {unsafe.Sizeof(gpioValues{}), 16, 16},
		"gpio_v2_line_event":            {unsafe.Sizeof(gpioEvent{}), gpioEventSize, gpioEventSize},
		"i2c_msg":                       {unsafe.Sizeof(i2cMessage{}), 12, 16},
		"i2c_rdwr_ioctl_data":           {unsafe.Sizeof(i2cTransfer{}), 8, 16},
		"i2c_smbus_ioctl_data":          {unsafe.Sizeof(smbusTransfer{}), 12, 16},
		"i2c_smbus_data":                {unsafe.Sizeof(smbusData{}), 34, 34},
		"spi_ioc_transfer":              {unsafe.Sizeof(spiTransfer{}), spiTransferSize, spiTransferSize},
		"serial_rs485":                  {unsafe.Sizeof(rs485{}), 32, 32},
	} {
		want := c.want64
		if unsafe.Sizeof(uintptr(0)) == 4 {
			want = c.want32
		}
		if c.got != want {
			t.Errorf("%s: got %d bytes, want %d", name, c.got, want)
		}
	}
}

func TestRequestNumbersCarryTheSizesOfTheirStructures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request uint
		size    uintptr
	}{
		"chip info":  {gpioGetChipInfo, unsafe.Sizeof(gpioChipInfo{})},
		"line info":  {gpioGetLineInfo, unsafe.Sizeof(gpioLineInfo{})},
		"get line":   {gpioGetLine, unsafe.Sizeof(gpioRequest{})},
		"set config": {gpioSetConfig, unsafe.Sizeof(gpioConfig{})},
		"get values": {gpioGetValues, unsafe.Sizeof(gpioValues{})},
		"set values": {gpioSetValues, unsafe.Sizeof(gpioValues{})},
	} {
		if got := uintptr(c.request >> 16 & 0x3fff); got != c.size {
			t.Errorf("%s: got %d bytes in the number, want %d", name, got, c.size)
		}
	}
}

func TestOffsetsOfWhatTheKernelReadsAndWrites(t *testing.T) {
	t.Parallel()
	var req gpioRequest
	var info gpioLineInfo
	var ev gpioEvent
	for name, c := range map[string]struct{ got, want uintptr }{
		"consumer of a request": {unsafe.Offsetof(req.consumer), 256},
		"config of a request":   {unsafe.Offsetof(req.config), 288},
		"lines of a request":    {unsafe.Offsetof(req.num), 560},
		"descriptor":            {unsafe.Offsetof(req.fd), 588},
		"flags of a line":       {unsafe.Offsetof(info.flags), 72},
		"attributes of a line":  {unsafe.Offsetof(info.attrs), 80},
		"sequence of an event":  {unsafe.Offsetof(ev.lineSeq), 20},
		"kind of an event":      {unsafe.Offsetof(ev.id), 8},
		"speed of an SPI piece": {unsafe.Offsetof(spiTransfer{}.speed), 20},
		"bits of an SPI piece":  {unsafe.Offsetof(spiTransfer{}.bits), 26},
		"size of an SMBus call": {unsafe.Offsetof(smbusTransfer{}.size), 4},
	} {
		if c.got != c.want {
			t.Errorf("%s: got offset %d, want %d", name, c.got, c.want)
		}
	}
}
