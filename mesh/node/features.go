package node

import (
	"fmt"
	"maps"
	"slices"

	"skywire/mesh/link/udp"
	"skywire/mesh/node/api"
	"skywire/mesh/session"
)

// SocketFeatures says what a UDP socket of that kind can do; plain tells that trains were not asked for.
func SocketFeatures(of string, i udp.Info, plain bool) []api.Feature {
	why, remedy := "", ""
	if plain {
		why, remedy = "turned off by the setting plain", "run without --plain"
	}
	gso, gsoRemedy := why, remedy
	if i.GSORefused != nil {
		gso = fmt.Sprintf("turned off: the device refused a train (%v)", i.GSORefused)
		gsoRemedy = "checksums by the device (ethtool -K DEVICE tx on), or Linux 6.11"
	}
	all := []api.Feature{
		api.NewFeature(of, api.FeatureGSO, i.GSO, gso, gsoRemedy),
		api.NewFeature(of, api.FeatureGRO, i.GRO, why, remedy),
		api.NewFeature(of, api.FeatureECN, i.ECN, "", ""),
	}
	if !i.GSO || !i.GRO { // nothing needs it beside them
		all = append(all, api.NewFeature(of, api.FeatureMMsg, i.MMsg, "", ""))
	}
	if i.ReceiveBuffer > 0 {
		all = append(all, buffer(of, api.FeatureReceive, i.ReceiveBuffer, i.AskedBuffer), buffer(of, api.FeatureSend, i.SendBuffer, i.AskedSendBuffer))
	}
	return all
}

func buffer(of, name string, got, asked int) api.Feature {
	found := fmt.Sprintf("%d kB", got>>10)
	if got < asked {
		found = fmt.Sprintf("%d kB of %d kB asked", got>>10, asked>>10)
	}
	return api.NewFeature(of, name, got >= asked, found, "")
}

// CipherFeature says which cipher this CPU is for.
func CipherFeature() api.Feature {
	on := session.HardwareAES()
	found := "AES-256-GCM with peers that have it too"
	if !on {
		found = "not in this CPU: ChaCha20-Poly1305"
	}
	return api.NewFeature("cipher", api.FeatureAES, on, found, "")
}

// features are what the sockets, devices and the CPU of a running node give the data plane.
func (n *Node) features() []api.Feature {
	all := []api.Feature{CipherFeature()}
	for _, s := range n.sockets {
		all = append(all, SocketFeatures("udp "+s.Addr().String(), s.Info(), n.cfg.Plain)...)
	}
	if n.cfg.TUNFeatures == nil {
		return all
	}
	n.tunMu.Lock()
	defer n.tunMu.Unlock()
	for _, device := range slices.Sorted(maps.Keys(n.tuns)) {
		if parts := n.tuns[device]; len(parts) > 0 { // the queues of a device are alike
			has := n.cfg.TUNFeatures("tun "+device, parts[0].tun)
			if len(n.loops) == 1 { // one queue is all that is wanted
				has = slices.DeleteFunc(has, func(f api.Feature) bool { return f.Name == api.FeatureMultiQueue && !f.On })
			}
			all = append(all, has...)
			all = append(all, n.streamFeature(device))
		}
	}
	return all
}
