package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// body is record n of a producer: its name, and as many bytes as both determine. Every seventh is large, so that a segment
// is soon full.
func body(producer int, n uint64) []byte {
	size := 30 + int(n*n*37%900)
	if n%7 == 0 {
		size = 48 << 10
	}
	return fill(fmt.Sprintf("%d/%d/", producer, n), size, uint64(producer), n)
}

// document is version n of a document.
func document(d int, n uint64) []byte {
	return fill(fmt.Sprintf("doc %d %d ", d, n), 20+int(n*n*131%9000), uint64(d)+100, n)
}

func fill(head string, size int, a, b uint64) []byte {
	out := append(make([]byte, 0, len(head)+size+8), head...)
	rng := rand.New(rand.NewPCG(a, b))
	for len(out) < len(head)+size {
		v := rng.Uint64()
		out = append(out, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), byte(v>>40), byte(v>>48), byte(v>>56))
	}
	return out
}

// parse says which record a body is, and whether it is whole.
func parse(b []byte) (producer int, n uint64, err error) {
	if _, err := fmt.Sscanf(string(b[:min(len(b), 40)]), "%d/%d/", &producer, &n); err != nil || producer < 0 || producer >= producers {
		return 0, 0, fmt.Errorf("a message that nobody sent: %.30q", b)
	}
	if !bytes.Equal(b, body(producer, n)) {
		return producer, n, fmt.Errorf("record %d of producer %d is not what was sent", n, producer)
	}
	return producer, n, nil
}

// version says which version of a document this is.
func version(d int, b []byte) (n uint64, err error) {
	if b == nil {
		return 0, nil
	}
	var which int
	if _, err := fmt.Sscanf(string(b[:min(len(b), 40)]), "doc %d %d ", &which, &n); err != nil || which != d || !bytes.Equal(b, document(d, n)) {
		return 0, fmt.Errorf("document %d holds what nobody stored: %.30q", d, b)
	}
	return n, nil
}
