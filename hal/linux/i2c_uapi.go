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
	smbusNone     = 99 // of this program

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

var errShape = fmt.Errorf("the adapter knows SMBus only and has no call of this shape: %w", errors.ErrUnsupported)

// smbusShapes are the transactions that put w bytes on the wire and then read r: which the adapter must have for it.
var smbusShapes = [...]struct {
	w, r int
	size uint32
	need uint32 // function bit
}{
	{0, 1, smbusByte, funcReadByte}, {1, 0, smbusByte, funcWriteByte},
	{1, 1, smbusByteData, funcReadByteD}, {2, 0, smbusByteData, funcWriteByteD},
	{1, 2, smbusWordData, funcReadWordD}, {3, 0, smbusWordData, funcWriteWordD},
}

// smbusSize is the one SMBus transaction that writes w bytes and reads r; smbusNone = the adapter has none of this shape.
func smbusSize(funcs uint32, w, r int) uint32 {
	for _, s := range smbusShapes {
		if s.w == w && s.r == r && funcs&s.need != 0 {
			return s.size
		}
	}
	if w == 1 && r >= 2 && r <= maxSMBus && funcs&funcReadI2CBlk != 0 || r == 0 && w >= 3 && w <= 1+maxSMBus && funcs&funcWriteI2CBlk != 0 {
		return smbusI2CBlock
	}
	return smbusNone
}
