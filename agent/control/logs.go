package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// headerPlaces says that each line of a log begins with its place: an agent of before does not know them.
const headerPlaces = "Sandpiper-Places"

// Logs copies log lines of a module to w, and with Follow goes on until ctx ends or the agent does. With a Place, the next call goes on
// behind the last line that was copied whole.
func (c *Client) Logs(ctx context.Context, module string, want LogRequest, w io.Writer) error {
	q := url.Values{"tail": {strconv.Itoa(want.Tail)}}
	for name, on := range map[string]bool{"follow": want.Follow, "json": want.JSON, "places": want.Place != nil} {
		if on {
			q.Set(name, "true")
		}
	}
	if want.Stream != "" {
		q.Set("stream", want.Stream)
	}
	if !want.Since.IsZero() {
		q.Set("since", want.Since.UTC().Format(time.RFC3339Nano))
	}
	if want.Place != nil && *want.Place != "" {
		q.Set("after", *want.Place)
	}
	res, err := c.answer(ctx, http.MethodGet, "/modules/"+url.PathEscape(module)+"/logs?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if want.Place != nil && res.Header.Get(headerPlaces) != "" {
		err = placed(w, res.Body, want.Place)
	} else {
		_, err = io.Copy(w, res.Body)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err() // the user stopped following
	case errors.Is(err, io.ErrUnexpectedEOF):
		return said{"the agent ended meanwhile; modules run on, and what they print is there when it is back: ask again, with --since", err}
	}
	return err
}

// maxPlaced bounds a line with its place, in bytes: the longest line of a log, escaped as JSON.
const maxPlaced = 128 << 10

// placed copies whole lines without their places, and notes the place of the last one.
func placed(w io.Writer, from io.Reader, place *string) error {
	in := bufio.NewReaderSize(from, maxPlaced)
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		at, text, more := bytes.Cut(line[:len(line)-1], []byte{' '})
		if more {
			if _, err := w.Write(append(text, '\n')); err != nil {
				return err
			}
		}
		*place = string(at)
	}
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	want := LogRequest{Tail: -1, Follow: q.Get("follow") == "true", JSON: q.Get("json") == "true", Stream: q.Get("stream")}
	if text := q.Get("tail"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			s.answer(w, nil, fmt.Errorf("tail %q is not a number: %w", text, ErrRefused))
			return
		}
		want.Tail = n
	}
	if text := q.Get("since"); text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			s.answer(w, nil, fmt.Errorf("since %q is not an RFC 3339 time: %w", text, ErrRefused))
			return
		}
		want.Since = at
	}
	if q.Get("places") == "true" {
		after := q.Get("after")
		want.Place = &after
		w.Header().Set(headerPlaces, "true")
	}
	out := &body{w: w, kind: "text/plain; charset=utf-8", live: true}
	err := s.cfg.Logs(r.Context(), r.PathValue("module"), want, out)
	switch {
	case err == nil, r.Context().Err() != nil:
	case out.wrote:
		s.cfg.Logger.Warn("log stream ended", "module", r.PathValue("module"), "err", err)
	default:
		s.answer(w, nil, err)
	}
}

// body is an answer that is written as it comes, and knows whether it has begun: after that no error can be said.
type body struct {
	w     http.ResponseWriter
	kind  string // Content-Type
	live  bool   // each write is sent at once, so that a follower sees a line when it is written
	wrote bool
}

func (b *body) Write(p []byte) (int, error) {
	if !b.wrote {
		b.w.Header().Set("Content-Type", b.kind)
		b.wrote = true
	}
	n, err := b.w.Write(p)
	if err == nil && b.live {
		err = http.NewResponseController(b.w).Flush()
	}
	return n, err
}
