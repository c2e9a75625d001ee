package agent

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/sandpiper-edge/sandpiper/agent/checkup"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
)

// adviceOf says what of the board disagrees with the safe levels of its outputs, before any of them is driven. What cannot be looked at is
// said when it is opened.
func adviceOf(board *linux.Board, list []hal.Resource) (lines []string) {
	for _, r := range list {
		advice, err := board.Advise(r)
		if err != nil {
			continue
		}
		for _, a := range advice {
			lines = append(lines, a.What+": "+a.Do)
		}
	}
	return lines
}

// checkPins holds the outputs of the configuration against the board, without moving any.
func (c Config) checkPins(_ context.Context, say func(checkup.Level, string, string)) {
	list, err := c.Hal.Resources()
	if err != nil || len(list) == 0 {
		return // without [hal] there is nothing to say, and what is wrong in it was said of the configuration
	}
	if c.Hal.Backend == "sim" {
		if err := loadColumns(&c.Hal, time.Now()); err != nil {
			say(checkup.Bad, "hal."+err.Error(), "the agent does not start with it")
		} else if _, err := simulated(c.Hal.Replay); err != nil {
			say(checkup.Bad, "hal.replay: "+err.Error(), "the agent does not start with it; `sandpiper hal record` writes one")
		}
		say(checkup.Warning, "the board is simulated: no pin of this device is read or driven", `write backend = "linux" in [hal] for the real one`)
		return
	}
	board, err := linux.NewBoard(linux.Config{})
	if err != nil {
		say(checkup.Unknown, err.Error(), "")
		return
	}
	for _, r := range list {
		advice, err := board.Advise(r)
		if err != nil {
			say(checkup.Warning, strings.ReplaceAll(err.Error(), "\n", "; "), "`sandpiper hal scan` shows what this board has")
			continue
		}
		for _, a := range advice {
			say(checkup.Warning, a.What, a.Do)
		}
	}
	say(checkup.Well, strconv.Itoa(len(list))+" pins, buses and sensors are named", "")
}
