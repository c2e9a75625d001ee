package agent

import (
	"errors"
	"log/slog"

	"github.com/sandpiper-edge/sandpiper/store"
)

// healed are the documents of the twins. One that the disk did not keep is not there: the hub gives its section again, and modules
// report theirs again. It must not keep the agent from starting.
type healed struct {
	*store.Docs
	logger *slog.Logger
}

// Get returns nil for a document that the disk damaged.
func (h healed) Get(key string) ([]byte, error) {
	raw, err := h.Docs.Get(key)
	if errors.Is(err, store.ErrDamaged) {
		h.logger.Error("twin lost by the disk, it is fetched again", "document", key, "err", err)
		return nil, nil
	}
	return raw, err
}
