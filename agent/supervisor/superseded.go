package supervisor

import (
	"context"
	"errors"
	"sync"
)

// errSuperseded ends the fetching for a deployment that is not the wanted one any more.
var errSuperseded = errors.New("a newer deployment came while an image was fetched")

// untilSuperseded returns a context for fetching: it ends when the twin has another version than the one that is carried out. A
// fetch may take hours, and the deployment that takes its image back must not wait for it. Kicks that come meanwhile are passed on
// by stop, which ends the watching.
func (s *Supervisor) untilSuperseded(ctx context.Context, version int64) (fetching context.Context, stop func()) {
	fetching, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		kicked := false
		for {
			select {
			case <-s.kick:
				kicked = true
				if s.cfg.Twins.Snapshot(s.id).DesiredVersion != version {
					cancel(errSuperseded)
				}
			case <-ended:
				if kicked {
					signal(s.kick)
				}
				return
			}
		}
	})
	return fetching, func() {
		close(ended)
		watching.Wait()
		cancel(nil)
	}
}
