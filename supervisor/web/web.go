// Package web is the page of viscript: what a browser gets, and no server (supervisor/api) and no build step. The page asks
// the same methods of signal as the shell does. Rules: everything comes from here, no other host; text from apps and
// peers reaches the document as text, never as HTML.
package web

import (
	"embed"
	"io/fs"
)

//go:embed page
var page embed.FS

// Page is the files of the page, index.html among them.
func Page() fs.FS {
	sub, err := fs.Sub(page, "page")
	if err != nil { // page is there, or this would not have been built
		return page
	}
	return sub
}
