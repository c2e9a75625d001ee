package mqtttest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Pump connects on nc and publishes n messages with QoS 1, window of them in flight; it returns when all are acknowledged: the benchmark's client. It
// encodes the packet once and changes only the identifier, and reads acknowledgements without decoding more than their identifier, so that
// the server is what is measured. started (which may be nil) is called once the CONNACK is there. nc stays open.
func Pump(nc net.Conn, o Options, topic string, payload []byte, n, window int, started func()) error {
	r := bufio.NewReaderSize(nc, 16<<10)
	if _, err := greet(nc, r, o); err != nil {
		return err
	}
	if started != nil {
		started()
	}
	frame := []byte{packets.Publish<<4 | 1<<1}
	for size := 4 + len(topic) + len(payload); ; size >>= 7 {
		if size < 128 {
			frame = append(frame, byte(size))
			break
		}
		frame = append(frame, byte(size)|128)
	}
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(topic)))
	frame = append(frame, topic...)
	at := len(frame)
	frame = append(append(frame, 0, 0), payload...)

	slots := make(chan struct{}, window)
	done := make(chan error, 1)
	go func() { done <- count(r, n, slots) }()
	w := bufio.NewWriterSize(nc, 16<<10)
	for i := range n {
		select {
		case slots <- struct{}{}:
		default:
			if err := w.Flush(); err != nil {
				return err
			}
			select {
			case slots <- struct{}{}:
			case err := <-done:
				return fmt.Errorf("after %d: %w", i, err)
			}
		}
		binary.BigEndian.PutUint16(frame[at:], uint16(i%65535+1))
		if _, err := w.Write(frame); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return <-done
}

// count takes a slot for each of n acknowledgements, and checks their order.
func count(r *bufio.Reader, n int, slots <-chan struct{}) error {
	var ack [4]byte
	for i := range n {
		if _, err := io.ReadFull(r, ack[:]); err != nil {
			return err
		}
		if got, want := binary.BigEndian.Uint16(ack[2:]), uint16(i%65535+1); ack[0] != packets.Puback<<4 || got != want {
			return fmt.Errorf("packet %x instead of the PUBACK of %d", ack, want)
		}
		<-slots
	}
	return nil
}
