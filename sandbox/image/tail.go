package image

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"

	"github.com/sandpiper-edge/sandpiper/sandbox/image/bundle"
)

// tail is the start of a chunk that was cut: the next connection brings its rest. It is kept in the stage for the next agent, and costs
// nothing when it is lost, or wrong.
type tail struct {
	chunk int
	bytes []byte // of the chunk as it is stored
}

const (
	tailSuffix = ".tail" // a file of 4 bytes that number the chunk, and the bytes
	tailHead   = 4
)

func (s *Store) tailPath(image bundle.Digest) string { return s.stagePath(image.Hex() + tailSuffix) }

// keepTail keeps what came of a chunk.
func (t *transfer) keepTail(chunk int, came []byte) {
	t.tail = tail{chunk, bytes.Clone(came)}
	if t.repairing || len(came) == 0 || !t.src.current().transient() {
		return
	}
	f, err := openOwn(t.store.tailPath(t.head.Manifest.Image.Digest))
	if err != nil {
		return
	}
	_ = f.Truncate(0) // whatever is there is compared with the chunk's digest
	_, _ = f.WriteAt(append(binary.BigEndian.AppendUint32(nil, uint32(chunk)), came...), 0)
	_ = f.Close()
}

// findTail takes what an earlier agent left.
func (t *transfer) findTail() {
	f, err := openSealed(t.store.tailPath(t.head.Manifest.Image.Digest))
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, tailHead+bundle.MaxChunk))
	if err != nil || len(text) < tailHead {
		return
	}
	chunk, came := binary.BigEndian.Uint32(text), text[tailHead:]
	if int64(chunk) < int64(len(t.part.index)) && len(came) < int(t.part.index[chunk].Stored) {
		t.tail = tail{int(chunk), came}
	}
}

func (t *transfer) dropTail() {
	t.tail = tail{}
	if t.head != nil {
		_ = os.Remove(t.store.tailPath(t.head.Manifest.Image.Digest))
	}
}
