package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// verityBlock is the block length of the fs-verity tree, in bytes. The kernel's file digest is defined by it.
const verityBlock = 4096

// Verity computes the fs-verity file digest (sha256, 4 KiB blocks, no salt) of what is written to it, as
// FS_IOC_MEASURE_VERITY reports it. It keeps one block per tree level, whatever the file's length. The zero value is ready.
type Verity struct {
	data   hash.Hash
	filled int // bytes of the current data block
	size   uint64
	levels [][]byte // pending hashes of each level, each less than a block
	last   Digest   // the newest hash of the top level
}

// Write never fails.
func (v *Verity) Write(p []byte) (int, error) {
	n := len(p)
	if v.data == nil {
		v.data = sha256.New()
	}
	for len(p) > 0 {
		take := min(len(p), verityBlock-v.filled)
		v.data.Write(p[:take])
		v.filled += take
		v.size += uint64(take)
		p = p[take:]
		if v.filled == verityBlock {
			v.endBlock()
		}
	}
	return n, nil
}

func (v *Verity) endBlock() {
	v.data.Write(zeros[:verityBlock-v.filled])
	var sum Digest
	v.data.Sum(sum[:0])
	v.data.Reset()
	v.filled = 0
	v.push(0, sum)
}

// push adds a hash to a level, and a full block of a level becomes a hash of the next.
func (v *Verity) push(level int, sum Digest) {
	if level == len(v.levels) {
		v.levels = append(v.levels, make([]byte, 0, verityBlock))
	}
	v.levels[level] = append(v.levels[level], sum[:]...)
	if level == len(v.levels)-1 {
		v.last = sum
	}
	if len(v.levels[level]) == verityBlock {
		up := sha256.Sum256(v.levels[level])
		v.levels[level] = v.levels[level][:0]
		v.push(level+1, up)
	}
}

// Digest ends the file and returns its digest. Nothing may be written after it.
func (v *Verity) Digest() Digest {
	if v.filled > 0 {
		v.endBlock()
	}
	// Close each level from the bottom; the one block that remains is the root.
	for level := 0; level < len(v.levels); level++ {
		pending := v.levels[level]
		top := level == len(v.levels)-1
		if len(pending) == 0 || (top && len(pending) == len(Digest{})) {
			continue
		}
		v.levels[level] = pending[:0]
		v.push(level+1, sha256.Sum256(append(pending, zeros[:verityBlock-len(pending)]...)))
	}
	var descriptor [256]byte // struct fsverity_descriptor
	descriptor[0] = 1        // version
	descriptor[1] = 1        // SHA-256
	descriptor[2] = 12       // log2 of the block length
	binary.LittleEndian.PutUint64(descriptor[8:], v.size)
	copy(descriptor[16:], v.last[:])
	return sha256.Sum256(descriptor[:])
}

var zeros [verityBlock]byte
