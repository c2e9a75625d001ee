//go:build amd64 || arm64

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// asPowercut makes this test binary the command: the workload and the judge are processes of their own.
const asPowercut = "SANDPIPER_POWERCUT_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asPowercut) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// judge is a process that checks folders: a store that takes its process with it, or hangs, is told from one that does not.
type judge struct {
	cmd     *exec.Cmd
	tasks   *json.Encoder
	answers *bufio.Reader
	close   func()
}

// patience with one folder; a store that needs it hangs.
const patience = 60 * time.Second

func newJudge(t *testing.T) *judge {
	t.Helper()
	j := &judge{}
	t.Cleanup(func() { j.end() })
	return j
}

func (j *judge) start() error {
	j.cmd = exec.Command(os.Args[0], "checks")
	j.cmd.Env = append(os.Environ(), asPowercut+"=1")
	j.cmd.Stderr = os.Stderr
	in, err := j.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := j.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	j.tasks, j.answers, j.close = json.NewEncoder(in), bufio.NewReader(out), func() { in.Close() }
	return j.cmd.Start()
}

func (j *judge) end() {
	if j.cmd == nil {
		return
	}
	j.close()
	_ = j.cmd.Wait()
	j.cmd = nil
}

// ask checks a folder.
func (j *judge) ask(work task) (v Verdict) {
	if j.cmd == nil {
		if err := j.start(); err != nil {
			return Verdict{Wrong: []string{fmt.Sprintf("start the judge: %v", err)}}
		}
	}
	impatient := time.AfterFunc(patience, func() { _ = j.cmd.Process.Kill() })
	defer impatient.Stop()
	began := time.Now()
	err := j.tasks.Encode(work)
	var line []byte
	if err == nil {
		line, err = j.answers.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, &v)
	}
	if err != nil {
		v.Wrong = append(v.Wrong, fmt.Sprintf("the store took its process with it, or hung, after %v: %v", time.Since(began).Round(time.Second), err))
		j.end()
	}
	return v
}
