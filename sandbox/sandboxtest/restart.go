package sandboxtest

import (
	"testing"

	"github.com/sandpiper-edge/sandpiper/sandbox"
)

func recoversRunning(t *testing.T, s *suite) {
	t.Helper()
	spec := s.spec("survivor", ScriptHold)
	old := s.run(spec)
	s.wantLine(s.lines(spec), "ready")
	i := s.recovered(t, 1)[0]
	if i.ID() != old.ID() || i.Pid() != old.Pid() || !i.Started().Equal(old.Started()) {
		s.Errorf("got %s %d %v, want %s %d %v", i.ID(), i.Pid(), i.Started(), old.ID(), old.Pid(), old.Started())
	}
	s.wantErr("start again", i.Start(), sandbox.ErrStarted)
	if e, ok := i.(sandbox.Execer); ok {
		exit, err := e.Exec(s.ctx, sandbox.Command{Args: []string{"/bin/bash", "-c", ScriptExit}})
		if err != nil || exit.Code != 7 {
			s.Errorf("exec: got %+v, %v, want code 7", exit, err)
		}
	}
	s.serve(i, "again")
	e, err := sandbox.Stop(s.ctx, i, 0, patience)
	if err != nil || !e.Known || e.Code != 3 {
		s.Errorf("got %+v, %v, want code 3", e, err)
	}
}

func recoversEnded(t *testing.T, s *suite) {
	t.Helper()
	s.wait(s.run(s.spec("ended", ScriptExit)))
	i := s.recovered(t, 1)[0]
	if e := s.wait(i); i.ID() != "ended" || e.Code != 7 || !e.Known {
		s.Errorf("got %s %+v, want ended with code 7", i.ID(), e)
	}
}

func recoversWaiting(t *testing.T, s *suite) {
	t.Helper()
	s.create(s.spec("waiting", ScriptHold))
	s.recovered(t, 0)
}

// recovered stands for a restart of the agent.
func (s *suite) recovered(t *testing.T, want int) []sandbox.Instance {
	s.Helper()
	s.rt = s.open(t)
	found, err := s.rt.Recover(s.ctx)
	if err != nil || len(found) != want {
		s.Fatalf("recover: got %d instances, %v, want %d", len(found), err, want)
	}
	for _, i := range found {
		s.Cleanup(func() {
			if err := i.Destroy(); err != nil {
				s.Errorf("destroy: %v", err)
			}
		})
	}
	return found
}
