package linux

import "encoding/binary"

// putWord stores a word that the wire wants low byte first as the kernel's own number.
func putWord(kernel, wire []byte) {
	binary.NativeEndian.PutUint16(kernel, binary.LittleEndian.Uint16(wire))
}

// getWord is the way back.
func getWord(wire, kernel []byte) {
	binary.LittleEndian.PutUint16(wire, binary.NativeEndian.Uint16(kernel))
}
