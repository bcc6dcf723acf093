package dns

import "context"

// Answer is what a message gets; the fuzzer asks without a socket.
func (s *Server) Answer(ctx context.Context, b []byte, tcp bool) []byte { return s.answer(ctx, b, tcp) }
