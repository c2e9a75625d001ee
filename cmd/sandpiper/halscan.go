package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sandpiper-edge/sandpiper/cmd/console"
	"github.com/sandpiper-edge/sandpiper/hal"
	"github.com/sandpiper-edge/sandpiper/hal/linux"
)

func (s *shared) halScanCommand() *cobra.Command {
	var probe, asTOML bool
	c := &cobra.Command{
		Use: "scan", Short: "What this board has, without touching a bus; needs no agent and no configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := linux.NewBoard(linux.Config{})
			if err != nil {
				return err
			}
			found, err := b.Scan(cmd.Context(), hal.Probe(probe))
			if err != nil {
				return err
			}
			switch {
			case asTOML:
				_, err := io.WriteString(s.out, scanTOML(found))
				return err
			case s.json:
				return console.JSON(s.out, found)
			}
			var rows [][]string
			for _, f := range found {
				rows = append(rows, []string{string(f.Kind), matchText(f.Match, " "), orDash(f.Holder), orDash(f.Unit), f.Detail})
			}
			return console.Table(s.out, "KIND MATCH HOLDER UNIT DETAIL", rows)
		},
	}
	c.Flags().BoolVar(&probe, "probe", false, "ask each free address of each I2C bus, too")
	c.Flags().BoolVar(&asTOML, "toml", false, "print a [hal] section to begin with: inputs and sensors that nobody holds, allowed to nobody")
	return s.withJSON(c)
}

func matchText(fields []hal.Field, between string) string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.Key + "=" + f.Value
	}
	return strings.Join(list, between)
}

// scanTOML is a configuration that works as it stands: what is free and can be read, under names that its owner changes. Outputs and
// buses are the owner's to declare, and stand below as remarks: nobody but them knows which value is safe, and which registers are whose.
func scanTOML(found []hal.Found) string {
	var b strings.Builder
	b.WriteString("[hal]\nbackend = \"linux\"\n")
	twins, numbers := map[string]int{}, map[hal.Kind]int{}
	for i := range found {
		twins[matchText(found[i].Match, " ")]++
	}
	var rest []string
	for _, f := range found {
		why := remark(f.Detail)
		if f.Holder != "" {
			why += ", held by " + remark(f.Holder)
		}
		switch {
		case f.Kind != hal.KindLine && f.Kind != hal.KindSensor || f.Holder != "":
			rest = append(rest, fmt.Sprintf("#   %-6s  %s  (%s)\n", f.Kind, tomlMatch(f.Match), why))
			continue
		case twins[matchText(f.Match, " ")] > 1:
			rest = append(rest, fmt.Sprintf("#   %-6s  %s  (%s; several have this name: add parent to its source)\n", f.Kind, tomlMatch(f.Match), why))
			continue
		}
		numbers[f.Kind]++
		fmt.Fprintf(&b, "\n[[hal.%s]]  # %s\nname = \"%s-%d\"\n", f.Kind, why, f.Kind, numbers[f.Kind])
		if f.Kind == hal.KindLine {
			for _, m := range f.Match {
				b.WriteString(tomlMatch([]hal.Field{m}) + "\n")
			}
			b.WriteString("direction = \"in\"  # an output also needs safe = 0 or 1\nallow = []\n")
			continue
		}
		fmt.Fprintf(&b, "source = {%s}\nunit = %s\n", tomlMatch(f.Match), tomlText(f.Unit))
		if f.Scale != 1 && f.Scale != 0 {
			fmt.Fprintf(&b, "scale = %s\n", strconv.FormatFloat(f.Scale, 'f', -1, 64))
		}
		b.WriteString("allow = []\n")
	}
	if len(numbers) == 0 {
		b.WriteString("# nothing was found that is free to be read\n")
	}
	if len(rest) > 0 {
		b.WriteString("\n# What takes more than a name to declare, or is taken:\n" + strings.Join(rest, ""))
	}
	return b.String()
}

// tomlMatch are keys with their values as TOML has them: offsets are numbers, all else is text.
func tomlMatch(fields []hal.Field) string {
	list := make([]string, len(fields))
	for i, f := range fields {
		value := tomlText(f.Value)
		if _, err := strconv.ParseUint(f.Value, 0, 32); err == nil && slices.Contains([]string{"offset", "addr", "cs", "channel"}, f.Key) {
			value = f.Value
		}
		list[i] = f.Key + " = " + value
	}
	return strings.Join(list, ", ")
}

// tomlText is a text of the kernel's, which may have anything in it.
func tomlText(s string) string {
	raw, err := json.Marshal(s) // its escapes are TOML's, too
	if err != nil {
		return `""`
	}
	return strings.ReplaceAll(string(raw), "\x7f", `\u007f`)
}

// remark is a text in a line of its own.
func remark(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
}
