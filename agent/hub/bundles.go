package hub

import (
	"io/fs"
	"net/http"
	"os"
	"strings"
)

// bundles serves the files below a directory, ranges and all. Nothing outside it can be reached, through links neither, and
// directories are not listed: whoever may have a file knows its name.
func bundles(root *os.Root) http.Handler {
	files := http.FileServerFS(onlyFiles{root.FS()})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") || r.URL.Path == "" {
			http.NotFound(w, r)
			return
		}
		files.ServeHTTP(w, r)
	})
}

// onlyFiles is a file system without directories to look at.
type onlyFiles struct{ fs.FS }

// Open implements fs.FS.
func (o onlyFiles) Open(name string) (fs.File, error) {
	f, err := o.FS.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return f, nil
}
