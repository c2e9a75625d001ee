package linux

import (
	"errors"
	"fmt"
	"unsafe"
)

// The I2C character device (linux/i2c-dev.h, linux/i2c.h). Structures with pointers differ between 32 and 64 bits;
// Go's layout is C's. Tests assert the sizes of both.

const (
	i2cRetries = 0x0701
	i2cTimeout = 0x0702 // in units of 10 ms
	i2cSlave   = 0x0703
	i2cFuncs   = 0x0705
	i2cRDWR    = 0x0707
	i2cSMBus   = 0x0720
)

// Functions of an adapter.
const (
	funcI2C         = 0x00000001
	func10Bit       = 0x00000002
	funcQuick       = 0x00010000
	funcReadByte    = 0x00020000
	funcWriteByte   = 0x00040000
	funcReadByteD   = 0x00080000
	funcWriteByteD  = 0x00100000
	funcReadWordD   = 0x00200000
	funcWriteWordD  = 0x00400000
	funcReadI2CBlk  = 0x04000000
	funcWriteI2CBlk = 0x08000000
)

const (
	msgRead = 0x0001 // I2C_M_RD

	maxI2CMessages = 42   // I2C_RDWR_IOCTL_MAX_MSGS
	maxI2CLength   = 8192 // the kernel refuses longer messages
)

// Sizes of an SMBus transfer.
const (
	smbusQuick    = 0
	smbusByte     = 1
	smbusByteData = 2
	smbusWordData = 3
	smbusI2CBlock = 8

	smbusRead  = 1
	smbusWrite = 0
	maxSMBus   = 32
)

type i2cMessage struct {
	addr, flags, length uint16
	buf                 unsafe.Pointer
}

type i2cTransfer struct {
	messages unsafe.Pointer
	count    uint32
}

type smbusTransfer struct {
	readWrite uint8
	command   uint8
	size      uint32
	data      unsafe.Pointer
}

// smbusData is union i2c_smbus_data: byte, word or a counted block.
type smbusData [maxSMBus + 2]byte

// piece is one step of a combined transfer: a write, a read, or a write and then a read after a repeated start.
// A read fills r.
type piece struct{ w, r []byte }

var errShape = fmt.Errorf("the adapter knows SMBus only and has no call of this shape: %w", errors.ErrUnsupported)

// call is one SMBus transaction.
type call struct {
	write   bool
	size    uint32
	command uint8
	data    []byte // written, or to be filled
	need    uint32 // function bit
}

// smbusCall maps a step to the one SMBus transaction that puts the same bytes on the wire, if the adapter has it.
func smbusCall(funcs uint32, p piece) (call, error) {
	var list []call
	switch w, r := p.w, p.r; {
	case len(w) == 0 && len(r) == 1:
		list = []call{{size: smbusByte, data: r, need: funcReadByte}}
	case len(w) == 1 && len(r) == 0:
		list = []call{{write: true, size: smbusByte, command: w[0], need: funcWriteByte}}
	case len(w) == 1 && len(r) == 1:
		list = []call{{size: smbusByteData, command: w[0], data: r, need: funcReadByteD}}
	case len(w) == 1 && len(r) == 2:
		list = []call{
			{size: smbusWordData, command: w[0], data: r, need: funcReadWordD},
			{size: smbusI2CBlock, command: w[0], data: r, need: funcReadI2CBlk},
		}
	case len(w) == 1 && len(r) <= maxSMBus:
		list = []call{{size: smbusI2CBlock, command: w[0], data: r, need: funcReadI2CBlk}}
	case len(w) == 2 && len(r) == 0:
		list = []call{{write: true, size: smbusByteData, command: w[0], data: w[1:], need: funcWriteByteD}}
	case len(w) == 3 && len(r) == 0:
		list = []call{
			{write: true, size: smbusWordData, command: w[0], data: w[1:], need: funcWriteWordD},
			{write: true, size: smbusI2CBlock, command: w[0], data: w[1:], need: funcWriteI2CBlk},
		}
	case len(w) > 3 && len(w) <= 1+maxSMBus && len(r) == 0:
		list = []call{{write: true, size: smbusI2CBlock, command: w[0], data: w[1:], need: funcWriteI2CBlk}}
	}
	for _, c := range list {
		if funcs&c.need != 0 {
			return c, nil
		}
	}
	return call{}, errShape
}
