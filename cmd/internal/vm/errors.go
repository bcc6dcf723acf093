package vm

import "errors"

// ErrNoQemu is returned when the machine has no qemu for the processor.
var ErrNoQemu = errors.New("qemu is missing")

// ErrNoResult is returned when a machine went down, or its time was up, before the guest had said that it was done.
var ErrNoResult = errors.New("the guest did not come to its end")
