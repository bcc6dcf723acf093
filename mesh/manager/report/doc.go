// Package report is the node's side of a manager: it keeps a stream to each configured manager, tells it the node's
// signed record, evens out what records the two hold, asks for paths and takes proposals. It also holds the messages
// that both sides speak: signal's JSON-RPC over a stream to the service "manager".
//
// It decides nothing: records are verified and proposals are judged by the node that it is given as an interface. With
// every manager dead it keeps trying, slower and slower, and nothing else notices.
//
// Rules: Run owns one goroutine per manager and what they start. Lock order: Reporter.mu alone, nothing is called with
// it held. Methods of the Node are called from several goroutines.
package report
