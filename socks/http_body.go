package socks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxChunkLine bounds the line before a chunk, with extensions nobody uses.
const maxChunkLine = 256

// copyN copies n bytes, or to the end of r where n is untilEnd. Whatever side is silent for too long ends it.
func copyN(dst io.Writer, r *bufio.Reader, n int64, src *source) error {
	var buf [8 << 10]byte
	for n != 0 {
		b := buf[:]
		if n > 0 {
			b = b[:min(n, int64(len(b)))]
		}
		if err := src.waiting(); err != nil {
			return err
		}
		got, err := r.Read(b)
		if n > 0 {
			n -= int64(got)
		}
		if got > 0 {
			if _, err := dst.Write(b[:got]); err != nil {
				return fmt.Errorf("body: %w", err)
			}
		}
		switch {
		case err == nil || n == 0:
		case n < 0 && errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("body: %w", io.ErrUnexpectedEOF)
		default:
			return fmt.Errorf("body: %w", err)
		}
	}
	return nil
}

// copyChunks copies a body in chunks with its trailer, as it is (RFC 9112, 7.1).
func copyChunks(dst io.Writer, r *bufio.Reader, src *source) error {
	for {
		if err := src.waiting(); err != nil {
			return err
		}
		line, err := readLine(r)
		if err != nil {
			return err
		}
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 16, 62)
		if err != nil || len(line) > maxChunkLine || !allBytes(line, isText) {
			return wrong(ErrProtocol, "length of a chunk")
		}
		if _, err := io.WriteString(dst, strconv.FormatUint(n, 16)+"\r\n"); err != nil {
			return fmt.Errorf("body: %w", err)
		}
		if n == 0 {
			return copyTrailer(dst, r)
		}
		if err := copyN(dst, r, int64(n), src); err != nil {
			return err
		}
		if line, err := readLine(r); err != nil || line != "" {
			return errors.Join(wrong(ErrProtocol, "end of a chunk"), err)
		}
		if _, err := io.WriteString(dst, "\r\n"); err != nil {
			return fmt.Errorf("body: %w", err)
		}
	}
}

// copyTrailer copies the lines after the last chunk to the empty one.
func copyTrailer(dst io.Writer, r *bufio.Reader) error {
	total := 0
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if total += len(line); total > maxHeaderBytes || !allBytes(line, isText) {
			return wrong(ErrProtocol, "trailer")
		}
		if _, err := io.WriteString(dst, line+"\r\n"); err != nil {
			return fmt.Errorf("body: %w", err)
		}
		if line == "" {
			return nil
		}
	}
}
