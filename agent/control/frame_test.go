package control

import (
	"bytes"
	"testing"
)

func FuzzFrame(f *testing.F) {
	f.Add([]byte{byte(frameStdin), 0, 0, 0, 0})
	f.Add([]byte{byte(frameResize), 0, 0, 0, 4, 0, 24, 0, 80})
	f.Add([]byte{byte(frameExit), 0, 0, 0, 4, 0, 0, 0, 7})
	f.Add([]byte{9, 255, 255, 255, 255})
	buf := make([]byte, maxFrame)
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := bytes.NewReader(raw)
		kind, p, err := readFrame(in, buf)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := (&frameWriter{w: &out}).write(kind, p); err != nil {
			t.Fatal(err)
		}
		if got, want := out.Bytes(), raw[:len(raw)-in.Len()]; !bytes.Equal(got, want) {
			t.Errorf("printed back: got %x, want %x", got, want)
		}
	})
}

func TestALongWriteIsSeveralFrames(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("0123456789"), 20000)
	var wire bytes.Buffer
	if n, err := (stream{&frameWriter{w: &wire}, frameStdout}).Write(long); n != len(long) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
	var got []byte
	buf := make([]byte, maxFrame)
	for wire.Len() > 0 {
		kind, p, err := readFrame(&wire, buf)
		if err != nil || kind != frameStdout {
			t.Fatalf("got kind %d, %v", kind, err)
		}
		got = append(got, p...)
	}
	if !bytes.Equal(got, long) {
		t.Errorf("got %d bytes, want %d the same", len(got), len(long))
	}
}
