package dns

import "time"

const (
	// maxUnderWay bounds the questions that wait for an answer, over UDP and TCP; the next one is refused at once. Each takes
	// a goroutine and a socket.
	maxUnderWay = 128
	// maxConns bounds the TCP connections to us.
	maxConns = 32
	// maxMessage is the largest message there is, over TCP.
	maxMessage = 65535
	// plainSize is what fits an answer over UDP to who states no size (RFC 1035), edns what we state ourselves and send at
	// most (the size that DNS flag day 2020 agreed upon, so that nothing is cut into fragments).
	plainSize, ednsSize = 512, 1232
	// idle ends a TCP connection that asks nothing (RFC 7766 section 6.2.3 wants seconds).
	idle = 10 * time.Second
	// answerWithin is when an asker has an answer or SERVFAIL: libc asks again, or somebody else, after 5 s.
	answerWithin = 4500 * time.Millisecond
	// tryWithin is what one resolver gets before the next one is asked.
	tryWithin = 1500 * time.Millisecond
	// lookWithin bounds a question to the node on this box.
	lookWithin = 2 * time.Second

	// maxUDP is the room for an answer over UDP: more than we say that we take, for those who don't listen.
	maxUDP = 4096
	// maxLearned bounds what one answer teaches, maxTTL for how long (a week: RFC 8767 section 4 advises so).
	maxLearned, maxTTL = 64, 7 * 24 * 3600

	// ttl is what an answer of ours is good for, negativeTTL a "no": a petname may change at any time.
	ttl, negativeTTL = 30, 5
)
