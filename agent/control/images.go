package control

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Image is one that is kept on the device, a bundle or an OCI image.
type Image struct {
	Digest    string    `json:"digest"`
	Kind      string    `json:"kind"`            // bundle or oci
	Name      string    `json:"name"`            // of a bundle's module, or of an OCI image's repository
	Version   string    `json:"version"`         // of a bundle, or an OCI image's tag
	Names     []string  `json:"names,omitempty"` // references of an OCI image
	Size      int64     `json:"size"`            // bytes on the disk
	Installed time.Time `json:"installed"`
	Mounted   bool      `json:"mounted"`
	Active    bool      `json:"active"`             // a module needs it
	Previous  bool      `json:"previous"`           // a module needed it before its present one
	Pinned    bool      `json:"pinned"`             // an operator keeps it
	Kept      bool      `json:"kept"`               // it was put here under its name, which keeps it until it is unpinned
	Checked   time.Time `json:"checked"`            // last read whole and found good
	Damaged   string    `json:"damaged,omitempty"`  // what is wrong with it, when that was asked
	Repaired  int       `json:"repaired,omitempty"` // chunks that were fetched again and replaced
	Signer    string    `json:"signer,omitempty"`   // whose signature was checked
	Config    any       `json:"config,omitempty"`   // of an OCI image: how it runs, its ports, labels and health check
	Stripped  any       `json:"stripped,omitempty"`
}

// ImageFuncs are what the operator can do with images. The zero value offers nothing.
type ImageFuncs struct {
	List func(ctx context.Context) ([]Image, error)
	Pull func(ctx context.Context, ref string) (Image, error)              // of a bundle's URL or an OCI reference
	Load func(ctx context.Context, file, want, name string) (Image, error) // an OCI layout or what docker save wrote

	Verify func(ctx context.Context, name string, repair bool) (Image, error) // reads it whole; what is wrong with it is in the document
	GC     func(ctx context.Context, dryRun bool) ([]Image, error)            // what nobody needs; returns what went, or would
	Pin    func(ctx context.Context, name string, pinned bool) (Image, error) // kept whether a module needs it or not
}

func (s *Server) imageRoutes() {
	i := s.cfg.Images
	if i.List == nil {
		return
	}
	s.mux.HandleFunc("GET /images", func(w http.ResponseWriter, r *http.Request) {
		doc, err := i.List(r.Context())
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("POST /images/pull", func(w http.ResponseWriter, r *http.Request) {
		doc, err := i.Pull(r.Context(), r.URL.Query().Get("ref"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("POST /images/load", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		doc, err := i.Load(r.Context(), q.Get("file"), q.Get("want"), q.Get("name"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("POST /images/verify", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		doc, err := i.Verify(r.Context(), q.Get("image"), q.Has("repair"))
		s.answer(w, doc, err)
	})
	s.mux.HandleFunc("POST /images/gc", func(w http.ResponseWriter, r *http.Request) {
		doc, err := i.GC(r.Context(), r.URL.Query().Has("dry"))
		s.answer(w, doc, err)
	})
	for verb, pinned := range map[string]bool{"pin": true, "unpin": false} {
		s.mux.HandleFunc("POST /images/"+verb, func(w http.ResponseWriter, r *http.Request) {
			doc, err := i.Pin(r.Context(), r.URL.Query().Get("image"), pinned)
			s.answer(w, doc, err)
		})
	}
}

// Images asks for what is kept.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	var doc []Image
	err := c.ask(ctx, http.MethodGet, "/images", nil, &doc)
	return doc, err
}

// Pull has an image brought to the device and returns when it is there.
func (c *Client) Pull(ctx context.Context, ref string) (Image, error) {
	var doc Image
	err := c.ask(ctx, http.MethodPost, "/images/pull?"+url.Values{"ref": {ref}}.Encode(), nil, &doc)
	return doc, err
}

// Load has an image installed from an archive, whose path is as the agent sees it.
func (c *Client) Load(ctx context.Context, file, want, name string) (Image, error) {
	var doc Image
	err := c.ask(ctx, http.MethodPost, "/images/load?"+url.Values{"file": {file}, "want": {want}, "name": {name}}.Encode(), nil, &doc)
	return doc, err
}

// VerifyImage has an image read whole and, if so asked, repaired.
func (c *Client) VerifyImage(ctx context.Context, name string, repair bool) (Image, error) {
	q := url.Values{"image": {name}}
	if repair {
		q.Set("repair", "")
	}
	var doc Image
	err := c.ask(ctx, http.MethodPost, "/images/verify?"+q.Encode(), nil, &doc)
	return doc, err
}

// CollectImages removes images that nobody needs, or says which those are.
func (c *Client) CollectImages(ctx context.Context, dryRun bool) ([]Image, error) {
	path := "/images/gc"
	if dryRun {
		path += "?dry"
	}
	var doc []Image
	err := c.ask(ctx, http.MethodPost, path, nil, &doc)
	return doc, err
}

// PinImage keeps an image whether a module needs it or not, or no longer.
func (c *Client) PinImage(ctx context.Context, name string, pinned bool) (Image, error) {
	verb := "unpin"
	if pinned {
		verb = "pin"
	}
	var doc Image
	err := c.ask(ctx, http.MethodPost, "/images/"+verb+"?"+url.Values{"image": {name}}.Encode(), nil, &doc)
	return doc, err
}
