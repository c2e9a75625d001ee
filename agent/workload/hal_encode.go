package workload

import (
	"encoding/binary"
	"math"
)

// cborHead appends the first bytes of an item.
func cborHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n <= math.MaxUint8:
		return append(b, major<<5|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major<<5|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major<<5|27), n)
}

func cborString(b []byte, s string) []byte {
	return append(cborHead(b, cborText, uint64(len(s))), s...)
}

func cborInt(b []byte, n int64) []byte {
	if n < 0 {
		return cborHead(b, cborNegint, uint64(-1-n))
	}
	return cborHead(b, cborUint, uint64(n))
}

// cborOpen appends the head of a map whose length is known when it is closed, and gives where that stands. It has few keys.
func cborOpen(b []byte) ([]byte, int) { return append(b, cborMap<<5), len(b) }

// append writes the answer as CBOR.
func (a *frameAnswer) append(b []byte) []byte {
	b, at := cborOpen(b)
	b, n := cborHead(cborString(b, "id"), cborUint, a.ID), 1
	if a.Ops != nil {
		b = cborHead(cborString(b, "ops"), cborArray, uint64(len(a.Ops)))
		for i := range a.Ops {
			var own int
			b, own = cborOpen(b)
			var k int
			b, k = a.Ops[i].append(b)
			b[own] |= byte(k)
		}
		n++
	}
	if a.Events != nil {
		b = cborHead(cborString(b, "events"), cborArray, uint64(len(a.Events)))
		for i := range a.Events {
			b = a.Events[i].append(b)
		}
		n++
	}
	if e := a.Error; e != nil {
		b = cborString(b, "error")
		var own int
		b, own = cborOpen(b)
		b = cborString(cborString(b, "code"), string(e.Code))
		k := 1
		for _, one := range [...][2]string{{"name", e.Name}, {"detail", e.Detail}} {
			if one[1] != "" {
				b = cborString(cborString(b, one[0]), one[1])
				k++
			}
		}
		if e.Retry != 0 {
			b = cborInt(cborString(b, "retry_after_ms"), e.Retry)
			k++
		}
		b[own] |= byte(k)
		n++
	}
	b, k := a.frameResult.append(b)
	b[at] |= byte(n + k)
	return b
}

// append writes the keys of a result, and says how many.
func (r *frameResult) append(b []byte) ([]byte, int) {
	n := 0
	if r.Value != nil {
		b = append(cborString(b, "value"), cborOther<<5|27)
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(*r.Value))
		n++
	}
	if r.Mono != 0 {
		b = cborInt(cborString(b, "mono"), r.Mono)
		n++
	}
	if r.Quality != "" {
		b = cborString(cborString(b, "quality"), string(r.Quality))
		n++
	}
	if r.Fence != 0 {
		b = cborHead(cborString(b, "fence"), cborUint, r.Fence)
		n++
	}
	if len(r.R) > 0 {
		b = append(cborHead(cborString(b, "r"), cborBytes, uint64(len(r.R))), r.R...)
		n++
	}
	return b, n
}

func (e *frameEvent) append(b []byte) []byte {
	b, at := cborOpen(b)
	b = cborHead(cborString(b, "seq"), cborUint, e.Seq)
	b = cborHead(cborString(b, "lost"), cborUint, e.Lost)
	b = cborHead(cborString(b, "merged"), cborUint, e.Merged)
	b = cborInt(cborString(b, "mono"), e.Mono)
	n := byte(4)
	if e.Edge != "" {
		b = cborString(cborString(b, "edge"), string(e.Edge))
		n++
	}
	if e.CAN != 0 {
		b = cborHead(cborString(b, "can"), cborUint, uint64(e.CAN))
		n++
	}
	if len(e.Data) > 0 {
		b = append(cborHead(cborString(b, "data"), cborBytes, uint64(len(e.Data))), e.Data...)
		n++
	}
	b[at] |= n
	return b
}
