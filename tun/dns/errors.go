package dns

import "errors"

var (
	// ErrNoName is returned by Names when nobody has the name or the address.
	ErrNoName = errors.New("no such name")
	// ErrMode is returned for a mode that is none of system, exit, off, or addresses.
	ErrMode = errors.New("want exit, system, off, or addresses of resolvers such as 9.9.9.9,2620:fe::fe")
	// errForged is returned for an answer that does not fit the question.
	errForged = errors.New("the answer does not fit the question")
)
