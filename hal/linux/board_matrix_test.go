package linux

import (
	"context"
	"testing"
	"time"
)

// linePin is a line of gpio-sim, whose history the kernel traces: every direction and level that reached the controller.
func linePin(t *testing.T) matrixPin {
	t.Helper()
	s := newSimChip(t, "matrix", "RELAY")
	trace := s.trace(t)
	return matrixPin{name: "relay", start: []string{"set 0", "out"}, on: "set 1", off: "set 0", of: func() []string { return trace.of(t, 0) },
		low: func() bool { return !s.level(t, 0) }}
}

// boardPin is the line, or a channel of the lab's PWM controller.
func boardPin(t *testing.T, column string) matrixPin {
	t.Helper()
	if column == pwmOn {
		return boardPWM(t)
	}
	return linePin(t)
}

func TestBoardKillMatrixOfModuleAgentAndWarden(t *testing.T) {
	onBoard(t)
	matrix(t, boardPin, func(*testing.T) {})
}

func TestBoardPulseOfAKilledAgentIsEndedByTheNext(t *testing.T) {
	newHousehold(t, linePin(t)).pulse()
}

// pwmTrace is where the lab's controller tells what its first channel put out.
const pwmTrace = "/sys/module/lab_pwm/parameters/trace"

// boardPWM is channel 0 of the lab's controller, which remembers each time that its output began and ended.
func boardPWM(t *testing.T) matrixPin {
	t.Helper()
	onBoard(t, "lab_pwm")
	c, err := (&host{}).findClass(&pwmClass, "", "lab-pwm")
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPWM(c, 0, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Set(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Set(context.Background(), 0)
		_ = p.Close()
	})
	put(t, pwmTrace, "-") // from here on
	t.Setenv(matrixPWMVar, c.parent)
	return matrixPin{name: "heater", on: "on", off: "off", keeps: true, of: func() (list []string) {
		for _, c := range line(t, pwmTrace) {
			switch c {
			case '1':
				list = append(list, "on")
			case '0':
				list = append(list, "off")
			}
		}
		return list
	}}
}

// The whole of it: a server that adopts what the agent before held, 200 times over, and the pin never moves.
func TestBoardKilledAgentsNeverMoveARelayThatIsHigh(t *testing.T) {
	h := newHousehold(t, linePin(t))
	h.begin(columns[0].begin)
	h.kill(killsOr(200))
}
