package api

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/signal"
)

// benchService is built into every node, for its members. The dialling side says in the header who sends:
//
//	{"mode":"sink","ms":3000}     it sends for that long and closes; the answer is a report
//	{"mode":"source","ms":3000}   it receives for that long
//
//	report:  bytes u64 | nanoseconds from the first byte to the last u64
const benchService = "bench"

type benchHeader struct {
	Mode string `json:"mode"`
	MS   int64  `json:"ms"`
}

// benchBlock is what is sent at once; its bytes do not matter, QUIC does not compress.
const benchBlock = 64 << 10

// bench is node.bench: one stream there, then one back.
func (s *Server) bench(ctx context.Context, c *call) (any, error) {
	var p BenchParams
	if err := c.Bind(&p); err != nil {
		return nil, err
	}
	k, err := s.lookup(ctx, p.Key)
	if err != nil {
		return nil, err
	}
	d := 3 * time.Second
	if p.Seconds > 0 {
		d = time.Duration(min(p.Seconds, MaxBench.Seconds()) * float64(time.Second))
	}
	r := BenchResult{Key: k, Seconds: d.Seconds()}
	if r.SendBytes, r.SendMbit, err = s.benchSend(ctx, k, d); err != nil {
		return nil, err
	}
	r.ReceiveBytes, r.ReceiveMbit, err = s.benchReceive(ctx, k, d)
	return r, err
}

func (s *Server) benchDial(ctx context.Context, k key.Public, mode string, d time.Duration) (*stream.Stream, error) {
	header, err := json.Marshal(benchHeader{mode, d.Milliseconds()})
	if err != nil {
		return nil, err
	}
	st, err := s.streams.Dial(ctx, k, benchService, header)
	if err == nil {
		st.SetDeadline(time.Now().Add(d + lineTimeout))
	}
	return st, err
}

func (s *Server) benchSend(ctx context.Context, k key.Public, d time.Duration) (uint64, float64, error) {
	st, err := s.benchDial(ctx, k, "sink", d)
	if err != nil {
		return 0, 0, err
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { st.Reset(stream.CodeNone) })
	defer stop()
	if err := pour(st, d); err != nil {
		return 0, 0, err
	}
	var report [16]byte
	if _, err := io.ReadFull(st, report[:]); err != nil {
		return 0, 0, err
	}
	n, ns := binary.BigEndian.Uint64(report[:]), binary.BigEndian.Uint64(report[8:])
	return n, mbit(n, time.Duration(ns)), nil
}

func (s *Server) benchReceive(ctx context.Context, k key.Public, d time.Duration) (uint64, float64, error) {
	st, err := s.benchDial(ctx, k, "source", d)
	if err != nil {
		return 0, 0, err
	}
	defer st.Close()
	stop := context.AfterFunc(ctx, func() { st.Reset(stream.CodeNone) })
	defer stop()
	n, took, err := drink(st)
	return n, mbit(n, took), err
}

func mbit(n uint64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) * 8 / 1e6 / took.Seconds()
}

// benchHandler is the other end.
func (s *Server) benchHandler() stream.Service {
	return stream.Service{Allow: s.node.Member, Handle: func(_ context.Context, in *stream.Incoming) {
		defer s.benches.Add(-1)
		var h benchHeader
		err := json.Unmarshal(in.Header(), &h)
		d := time.Duration(h.MS) * time.Millisecond
		switch {
		case s.benches.Add(1) > maxBenches:
			in.Refuse(signal.Errorf(signal.ErrBusy, "%d benches run already", maxBenches))
			return
		case err != nil || h.MS <= 0 || d > MaxBench || h.Mode != "sink" && h.Mode != "source":
			in.Refuse(signal.Errorf(signal.ErrUsage, "bench: header"))
			return
		}
		st, err := in.Accept(nil)
		if err != nil {
			return
		}
		st.SetDeadline(time.Now().Add(d + lineTimeout))
		if h.Mode == "source" {
			err = pour(st, d)
			io.ReadFull(st, make([]byte, 1)) // the end of the receiver, so that the last bytes are not cut off
		} else {
			err = report(st)
		}
		if err != nil {
			s.log.Debug("bench", "peer", in.Peer().Short(), "err", err)
		}
	}}
}

func report(st *stream.Stream) error {
	n, took, err := drink(st)
	if err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(nil, n)
	b = binary.BigEndian.AppendUint64(b, uint64(took))
	if _, err := st.Write(b); err != nil {
		return err
	}
	return st.CloseWrite()
}

// pour sends for d and ends the direction.
func pour(st *stream.Stream, d time.Duration) error {
	block := make([]byte, benchBlock)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := st.Write(block); err != nil {
			return err
		}
	}
	return st.CloseWrite()
}

// drink receives to the end and measures from the first byte on.
func drink(st *stream.Stream) (n uint64, took time.Duration, err error) {
	block := make([]byte, benchBlock)
	var first time.Time
	for {
		got, err := st.Read(block)
		n += uint64(got)
		if first.IsZero() {
			first = time.Now()
		}
		if errors.Is(err, io.EOF) {
			return n, time.Since(first), nil
		}
		if err != nil {
			return n, 0, err
		}
	}
}
