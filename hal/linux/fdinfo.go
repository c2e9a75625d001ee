package linux

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// pastTime makes a wait end at once.
var pastTime = time.Unix(1, 0)

func baseName(path string) string { return filepath.Base(path) }

// fdinfoLine reads chip and line from the text that the kernel shows for a line's descriptor: "gpio-chip:\tgpiochip0"
// and "gpio-line:\t17".
func fdinfoLine(text string) (chip string, line uint32, ok bool) {
	found := 0
	for text != "" {
		var s string
		s, text, _ = strings.Cut(text, "\n")
		key, value, _ := strings.Cut(s, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "gpio-chip":
			chip = value
			found |= 1
		case "gpio-line":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || found&2 != 0 { // several lines in one request: not ours
				return "", 0, false
			}
			line = uint32(n)
			found |= 2
		}
	}
	return chip, line, found == 3
}
