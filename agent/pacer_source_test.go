package agent

import (
	"testing"
	"time"

	"github.com/sandpiper-edge/sandpiper/store"
)

func TestARelaxedMessageKeepsItsSource(t *testing.T) {
	t.Parallel()
	pacerRig(t, 0, func(t *testing.T, p *pacer, s *store.Store) {
		r := rec("a")
		r.Source = "meter"
		p.Put(r, relaxed, func(error) {})
		<-time.After(relaxed.Window + time.Second)
		got := s.Queue().Sources()
		if len(got) != 1 || got[0].Source != "meter" || got[0].Records != 1 {
			t.Errorf("got %+v, want one record of meter", got)
		}
	})
}
