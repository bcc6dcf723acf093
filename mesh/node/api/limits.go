package api

import "time"

const (
	// maxConns bounds the connections of all programs: 10,240 streams, as many as one peer may open (stream.ManyStreams),
	// and control. Each is a descriptor, or two with a handed-over one, so a small box needs its limit raised for that many.
	maxConns = 10_240 + 256
	// maxPerUID keeps what is left for root and the node's own user.
	maxPerUID = 10_240
	// maxLine bounds the lines of a stream connection: 4 KiB in base64, a key and names.
	maxLine = 16 << 10
	// maxServices of one app, and maxApps, fit into a record of 4 KiB.
	maxServices = 16
	maxApps     = 64
	// maxAllow bounds the keys that a service names.
	maxAllow = 1024
	// maxMeta bounds the text that a service publishes of itself.
	maxMeta = 256
	// maxName bounds the names of apps, services and their types.
	maxName = 64
	// maxStatus bounds what an app says of itself.
	maxStatus = 64 << 10
	// maxPending bounds the streams of a service that wait for a program to take them; one more is refused as busy. A
	// browser behind an exit opens hundreds at once, and each costs a goroutine for at most takeTimeout.
	maxPending = 2048
	// maxWaiting bounds the connections of a service that wait for a stream.
	maxWaiting = 1024
)

const (
	// firstLine bounds the wait for what a connection wants.
	firstLine = time.Minute
	// lineTimeout bounds writing a line to a program that does not read.
	lineTimeout = 10 * time.Second
	// takeTimeout is how long a stream waits for a program that accepts it.
	takeTimeout = 10 * time.Second
	// verdictTimeout is how long a program may think, or dial what lies behind its service, before it answers.
	verdictTimeout = 60 * time.Second
	// callTimeout bounds app.call without a deadline of its own.
	callTimeout = 30 * time.Second
)

const (
	// maxPage bounds what one answer lists, so that it fits a line of signal whatever strangers put into their records.
	maxPage = 768 << 10
	// fixedBytes is what the JSON of an element takes beside texts of others, escaped what a byte of these may become.
	fixedBytes = 512
	escaped    = 6
)

const (
	// MaxBench bounds one direction of node.bench.
	MaxBench = 30 * time.Second
	// maxBenches at once; one more is refused as busy.
	maxBenches = 2
)
