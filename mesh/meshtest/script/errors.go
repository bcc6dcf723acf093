package script

import "errors"

var (
	// ErrSyntax is returned when a line of a script is not in the language.
	ErrSyntax = errors.New("not understood")
	// ErrLimit is returned when a script asks for more than a simulation may take.
	ErrLimit = errors.New("too much")
	// ErrTopology is returned when a file of nodes is not what manager nodes --json prints.
	ErrTopology = errors.New("not a list of nodes")
)
