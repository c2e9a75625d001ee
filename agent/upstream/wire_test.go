package upstream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestWritingToTheWireDoesNotWaitForTheNetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // nobody reads
		w := newWire(near)
		for i := range 100 {
			if n, err := w.Write(bytes.Repeat([]byte{byte(i)}, 1000)); n != 1000 || err != nil {
				t.Fatalf("write %d: got %d, %v", i, n, err)
			}
		}
		read := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(far)
			read <- all
		}()
		synctest.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		all := <-read
		if len(all) != 100_000 || all[0] != 0 || all[len(all)-1] != 99 {
			t.Errorf("got %d bytes, want 100000 in order, also those that waited at Close", len(all))
		}
		<-w.ended
	})
}

func TestAWireSaysWhyItEnded(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		end  func(w *wire, far net.Conn)
		want error
	}{
		"closed here":  {func(w *wire, _ net.Conn) { _ = w.Close() }, errClosedHere},
		"closed there": {func(_ *wire, far net.Conn) { _ = far.Close() }, io.EOF},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				w := newWire(near)
				got := make(chan error, 1)
				go func() {
					_, err := w.Read(make([]byte, 1))
					got <- err
				}()
				synctest.Wait()
				tc.end(w, far)
				if err := <-got; !errors.Is(err, tc.want) {
					t.Errorf("read: got %v, want %v", err, tc.want)
				}
				_ = w.Close()
				<-w.ended
				if _, err := w.Write([]byte{1}); err == nil {
					t.Error("write after the end: got nil")
				}
				_ = far.Close()
			})
		})
	}
}

func TestAFailedWriteEndsReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		broken := errors.New("connection timed out")
		w := newWire(failing{near, broken})
		got := make(chan error, 1)
		go func() {
			_, err := w.Read(make([]byte, 1))
			got <- err
		}()
		if _, err := w.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, broken) {
			t.Errorf("got %v, want %v: the client library takes no notice of a closed connection", err, broken)
		}
		<-w.ended
		_ = far.Close()
	})
}

type failing struct {
	net.Conn
	err error
}

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestClosingAWireTakesNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // nobody reads
		w := newWire(near)
		_, _ = w.Write([]byte("DISCONNECT"))
		begun := time.Now()
		_ = w.Close()
		<-w.ended
		if took := time.Since(begun); took != lingerTime {
			t.Errorf("got %v, want %v", took, lingerTime)
		}
		_ = far.Close()
	})
}

func TestAWireIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := newWire(near)
		var err error
		for n := 0; err == nil && n < 100; n++ {
			_, err = w.Write(make([]byte, 1<<20))
		}
		if !errors.Is(err, errOutbox) {
			t.Errorf("got %v, want %v", err, errOutbox)
		}
		_ = far.Close()
		<-w.ended
	})
}
