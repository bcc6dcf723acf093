package applets

import (
	"strings"
	"syscall"
	"testing"

	"skywire/mesh/link/udp"
	"skywire/mesh/node"
	"skywire/mesh/node/api"
)

// TestFeatures wants each lack with what it costs, and what is there without.
func TestFeatures(t *testing.T) {
	t.Parallel()
	good := udp.Info{GSO: true, GRO: true, ECN: true, AskedBuffer: 4 << 20, ReceiveBuffer: 4 << 20, SendBuffer: 4 << 20}
	for _, tc := range []struct {
		name  string
		with  func(*udp.Info)
		plain bool
		want  []string
		not   []string
	}{
		{
			"all there", func(*udp.Info) {}, false,
			[]string{"udp       :1: gso, gro, ecn, receive buffer 4096 kB, send buffer 4096 kB\n"},
			[]string{"missing", "costs", "remedy", "mmsg"},
		},
		{
			"device without checksums", func(i *udp.Info) { i.GSO, i.GSORefused, i.MMsg = false, syscall.EIO, true }, false,
			[]string{"missing   udp :1 gso: turned off: the device refused a train (input/output error)", "ethtool", "gro, ecn, mmsg"},
			nil,
		},
		{
			"small buffers", func(i *udp.Info) { i.ReceiveBuffer = 208 << 10 }, false,
			[]string{"missing   udp :1 receive buffer: 208 kB of 4096 kB asked", "net.core.rmem_max"},
			[]string{"wmem_max"},
		},
		{
			"old kernel", func(i *udp.Info) { i.GSO, i.GRO, i.ECN = false, false, false }, false,
			[]string{"missing   udp :1 gso\n", "4.18", "5.0", "missing   udp :1 mmsg\n"},
			nil,
		},
		{
			"told so", func(i *udp.Info) { i.GSO, i.GRO = false, false }, true,
			[]string{"gro: turned off by the setting plain", "remedy: run without --plain"},
			[]string{"4.18"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			i := good
			tc.with(&i)
			all := node.SocketFeatures("udp :1", i, tc.plain)
			for _, f := range all {
				if f.On != (f.Costs == "") || f.On && f.Remedy != "" {
					t.Errorf("%+v: costs are said if and only if it is off", f)
				}
			}
			var out strings.Builder
			printFeatures(&out, all)
			for _, w := range tc.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("%q is not in:\n%s", w, out.String())
				}
			}
			for _, w := range tc.not {
				if strings.Contains(out.String(), w) {
					t.Errorf("%q is in:\n%s", w, out.String())
				}
			}
		})
	}
}

// TestEveryLackIsPriced knows what the lack of each feature costs.
func TestEveryLackIsPriced(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		api.FeatureGSO, api.FeatureGRO, api.FeatureECN, api.FeatureMMsg, api.FeatureReceive, api.FeatureSend, api.FeatureAES,
		api.FeatureVnetHdr, api.FeatureChecksum, api.FeatureTSO4, api.FeatureTSO6, api.FeatureTSOECN, api.FeatureUSO4, api.FeatureUSO6,
		api.FeatureJoinUDP, api.FeatureMultiQueue,
	} {
		if f := api.NewFeature("x", name, false, "", ""); f.Costs == "" {
			t.Errorf("%s: the lack costs nothing that is said", name)
		}
	}
}

// TestExercise sends a train over the loopback, which every system carries.
func TestExercise(t *testing.T) {
	t.Parallel()
	i, err := exercise(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i.GRO && !i.GSO {
		t.Errorf("%+v: a train that came in one piece was sent as one", i)
	}
}

func TestPrintMachine(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	printMachine(&out, api.Machine{CPUs: 4, Memory: 128 << 20, Small: true, Loops: []api.Loop{{Ports: []uint16{7667}}, {Ports: []uint16{7668}, TUNQueues: 1}}})
	for _, w := range []string{"4 CPUs", "GOMAXPROCS unknown", "2 event loops", "small buffers", "ports 7668, 1 tun"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("%q is not in:\n%s", w, out.String())
		}
	}
}
