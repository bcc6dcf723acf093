package wire

import (
	"bytes"
	"testing"
)

// fuzz feeds one parser: it must not panic, and what it accepts it must write again byte for byte, but for the
// room that later versions may use.
func fuzz(f *testing.F, name string) {
	f.Helper()
	var s sample
	for _, c := range samples(f) {
		if c.name == name {
			s = c
		}
	}
	if s.parse == nil {
		f.Fatalf("no sample of %s", name)
	}
	f.Add(s.bytes)
	f.Add(s.bytes[:len(s.bytes)/2])
	f.Add(append(bytes.Clone(s.bytes), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, again, err := s.parse(b)
		if err != nil {
			return
		}
		switch b = bytes.Clone(b); name {
		case "Header":
			b = b[:HeaderLen]
		case "Inner":
			b[3] = 0
		case "Payload":
			clear(b[52:])
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x\nbecame %x", b, again)
		}
	})
}

func FuzzNextMessage(f *testing.F) {
	for _, m := range []Message{Keep{}, Ping{1, 2}, setup(f), Record{[]byte{1}}} {
		f.Add(AppendMessage(AppendMessage(nil, m), m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, body, rest, err := NextMessage(b)
			if err != nil {
				return
			}
			if len(body)+len(rest)+MessageHead != len(b) {
				t.Fatal("bytes lost")
			}
			b = rest
		}
	})
}

func FuzzHeader(f *testing.F)        { fuzz(f, "Header") }
func FuzzInner(f *testing.F)         { fuzz(f, "Inner") }
func FuzzPayload(f *testing.F)       { fuzz(f, "Payload") }
func FuzzInit(f *testing.F)          { fuzz(f, "Init") }
func FuzzResp(f *testing.F)          { fuzz(f, "Resp") }
func FuzzCookie(f *testing.F)        { fuzz(f, "Cookie") }
func FuzzWho(f *testing.F)           { fuzz(f, "Who") }
func FuzzIsMe(f *testing.F)          { fuzz(f, "IsMe") }
func FuzzHint(f *testing.F)          { fuzz(f, "Hint") }
func FuzzKeep(f *testing.F)          { fuzz(f, "Keep") }
func FuzzPing(f *testing.F)          { fuzz(f, "Ping") }
func FuzzPong(f *testing.F)          { fuzz(f, "Pong") }
func FuzzRekey1(f *testing.F)        { fuzz(f, "Rekey1") }
func FuzzRekey2(f *testing.F)        { fuzz(f, "Rekey2") }
func FuzzChallenge(f *testing.F)     { fuzz(f, "Challenge") }
func FuzzResponse(f *testing.F)      { fuzz(f, "Response") }
func FuzzPort(f *testing.F)          { fuzz(f, "Port") }
func FuzzPortOpen(f *testing.F)      { fuzz(f, "PortOpen") }
func FuzzTwin(f *testing.F)          { fuzz(f, "Twin") }
func FuzzMeasure(f *testing.F)       { fuzz(f, "Measure") }
func FuzzTry(f *testing.F)           { fuzz(f, "Try") }
func FuzzTried(f *testing.F)         { fuzz(f, "Tried") }
func FuzzMembers(f *testing.F)       { fuzz(f, "Members") }
func FuzzMembersList(f *testing.F)   { fuzz(f, "MembersList") }
func FuzzStatement(f *testing.F)     { fuzz(f, "Statement") }
func FuzzWayAsk(f *testing.F)        { fuzz(f, "WayAsk") }
func FuzzWay(f *testing.F)           { fuzz(f, "Way") }
func FuzzSetupCore(f *testing.F)     { fuzz(f, "SetupCore") }
func FuzzSetup(f *testing.F)         { fuzz(f, "Setup") }
func FuzzAccept(f *testing.F)        { fuzz(f, "Accept") }
func FuzzRefuse(f *testing.F)        { fuzz(f, "Refuse") }
func FuzzRemove(f *testing.F)        { fuzz(f, "Remove") }
func FuzzEvent(f *testing.F)         { fuzz(f, "Event") }
func FuzzRules(f *testing.F)         { fuzz(f, "Rules") }
func FuzzRulesList(f *testing.F)     { fuzz(f, "RulesList") }
func FuzzRecord(f *testing.F)        { fuzz(f, "Record") }
func FuzzRecordAck(f *testing.F)     { fuzz(f, "RecordAck") }
func FuzzRecordsDigest(f *testing.F) { fuzz(f, "RecordsDigest") }
func FuzzRecordsSum(f *testing.F)    { fuzz(f, "RecordsSum") }
func FuzzPiece(f *testing.F)         { fuzz(f, "Piece") }
func FuzzAck(f *testing.F)           { fuzz(f, "Ack") }
func FuzzBye(f *testing.F)           { fuzz(f, "Bye") }
func FuzzControlKeep(f *testing.F)   { fuzz(f, "ControlKeep") }
func FuzzReport(f *testing.F)        { fuzz(f, "Report") }
func FuzzUse(f *testing.F)           { fuzz(f, "Use") }
func FuzzProbe(f *testing.F)         { fuzz(f, "Probe") }
func FuzzProbeAck(f *testing.F)      { fuzz(f, "ProbeAck") }
func FuzzControlRekey1(f *testing.F) { fuzz(f, "ControlRekey1") }
func FuzzControlRekey2(f *testing.F) { fuzz(f, "ControlRekey2") }
func FuzzProof(f *testing.F)         { fuzz(f, "Proof") }
func FuzzEcho(f *testing.F)          { fuzz(f, "Echo") }
func FuzzEchoReply(f *testing.F)     { fuzz(f, "EchoReply") }
func FuzzControlError(f *testing.F)  { fuzz(f, "ControlError") }
func FuzzLater(f *testing.F)         { fuzz(f, "Later") }
func FuzzLaterAnswer(f *testing.F)   { fuzz(f, "LaterAnswer") }
func FuzzPunch(f *testing.F)         { fuzz(f, "Punch") }
func FuzzPunchGo(f *testing.F)       { fuzz(f, "PunchGo") }
