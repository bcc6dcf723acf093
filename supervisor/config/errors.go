package config

import "errors"

// ErrInvalid is returned when the file can be read but says something that makes no sense; the text names the line.
var ErrInvalid = errors.New("invalid configuration")
