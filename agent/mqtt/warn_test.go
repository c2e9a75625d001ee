package mqtt_test

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/mqtt"
)

// TestWhoKnocksWithoutEndIsWarnedOfOnceASecond: a module must not fill the log of the agent.
func TestWhoKnocksWithoutEndIsWarnedOfOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, err := mqtt.New(mqtt.Config{Handler: newRecorder(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		knock := func(label string) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = ours.Write([]byte{0xf0, 0xff, 0xff, 0xff, 0x7f}) // refused before all of it is read
				_ = ours.Close()
			}()
			s.ServeConn(t.Context(), theirs, mqtt.Origin{Label: label})
			synctest.Wait()
		}
		for range 20 {
			knock("a")
		}
		knock("b")
		<-time.After(time.Second)
		knock("a")
		if got := strings.Count(log.String(), "before CONNACK"); got != 3 {
			t.Errorf("got %d warnings, want two of a and one of b:\n%s", got, log.String())
		}
	})
}
