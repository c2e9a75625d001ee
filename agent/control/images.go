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
	Signer    string    `json:"signer,omitempty"` // whose signature was checked
	Config    any       `json:"config,omitempty"` // of an OCI image: how it runs, its ports, labels and health check
	Stripped  any       `json:"stripped,omitempty"`
}

// ImageFuncs are what the operator can do with images. The zero value offers nothing.
type ImageFuncs struct {
	List func(ctx context.Context) ([]Image, error)
	Pull func(ctx context.Context, ref string) (Image, error)              // of a bundle's URL or an OCI reference
	Load func(ctx context.Context, file, want, name string) (Image, error) // an OCI layout or what docker save wrote
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
