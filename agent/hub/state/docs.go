package state

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// Errors of documents.
var (
	// ErrConflict is a compare-and-set that lost: some document is not at the revision expected. Nothing was stored.
	ErrConflict = errors.New("document changed meanwhile")
	// ErrNoBatches is a change of several documents on a server that takes no atomic batches.
	ErrNoBatches = errors.New("several documents cannot change together without batches")
)

// Doc is one document. An absent one has a nil Value and, if it was deleted, the Revision of its deletion: that is what
// a Put that creates it anew must expect.
type Doc struct {
	Key      Key
	Value    []byte
	Revision uint64
}

// Exists says whether there is a document.
func (d Doc) Exists() bool { return d.Value != nil }

// Put sets a document that is now at revision Expect, 0 for one that never was. A nil Value deletes it.
type Put struct {
	Key    Key
	Expect uint64
	Value  []byte
}

// Docs are the documents of one hub. All methods may be used by many goroutines.
type Docs struct {
	conn       *nats.Conn
	names      names
	shards     int
	leader     bool // ask the stream's leader instead of any replica
	committers []*committer
	watchers   *consumers
}

// Shards is the number of shards.
func (d *Docs) Shards() int { return d.shards }

// Shard is where the documents and events of a device are.
func (d *Docs) Shard(device string) int { return shardOf(device, d.shards) }

func (d *Docs) shard(k Key) int {
	if k.Device == "" {
		return metaShard
	}
	return d.Shard(k.Device)
}

// committer of a shard; the hub's own documents come first.
func (d *Docs) committer(shard int) *committer { return d.committers[shard-metaShard] }

// Get reads the newest revision. Absence is not an error, see [Doc].
func (d *Docs) Get(ctx context.Context, key Key) (Doc, error) {
	shard := d.shard(key)
	subject := d.names.docsSubject(shard) + key.String()
	read := d.getDirect
	if d.leader {
		read = d.getLeader
	}
	doc, err := read(ctx, d.names.docsStream(shard), subject)
	if err != nil {
		return Doc{}, fmt.Errorf("get %s: %w", key, err)
	}
	doc.Key = key
	return doc, nil
}

func (d *Docs) getDirect(ctx context.Context, stream, subject string) (Doc, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	reply, err := d.conn.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return Doc{}, err
	}
	switch status := reply.Header.Get("Status"); status {
	case "":
	case "404":
		return Doc{}, nil
	default:
		return Doc{}, &serverError{Text: status + " " + reply.Header.Get("Description")}
	}
	revision, err := strconv.ParseUint(reply.Header.Get(headerSequence), 10, 64)
	if err != nil {
		return Doc{}, fmt.Errorf("read revision: %w", err)
	}
	return newDoc(revision, reply.Header, reply.Data), nil
}

// getLeader reads from the stream's leader. A direct read may come from a replica that lags behind.
func (d *Docs) getLeader(ctx context.Context, stream, subject string) (Doc, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	request, err := json.Marshal(struct {
		Last string `json:"last_by_subj"`
	}{subject})
	if err != nil {
		return Doc{}, err
	}
	reply, err := d.conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
	if err != nil {
		return Doc{}, err
	}
	var answer struct {
		Error *struct {
			serverError
			Status int `json:"code"`
		} `json:"error"`
		Message struct {
			Seq    uint64 `json:"seq"`
			Header string `json:"hdrs"`
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return Doc{}, fmt.Errorf("read answer: %w", err)
	}
	if answer.Error != nil {
		if answer.Error.Status == 404 {
			return Doc{}, nil
		}
		return Doc{}, &answer.Error.serverError
	}
	raw, err := base64.StdEncoding.DecodeString(answer.Message.Header)
	if err != nil {
		return Doc{}, fmt.Errorf("read headers: %w", err)
	}
	header := nats.Header{}
	if len(raw) > 0 {
		if header, err = nats.DecodeHeadersMsg(raw); err != nil {
			return Doc{}, fmt.Errorf("read headers: %w", err)
		}
	}
	return newDoc(answer.Message.Seq, header, answer.Message.Data), nil
}

// newDoc is a stored message as a document. Deletions are messages too.
func newDoc(revision uint64, header nats.Header, value []byte) Doc {
	if header.Get(headerOperation) != "" {
		return Doc{Revision: revision}
	}
	if value == nil {
		value = []byte{}
	}
	return Doc{Revision: revision, Value: value}
}
