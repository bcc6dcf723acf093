package applet

import "testing"

func TestRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rate{
		"": 0, "0": 0, "8bit": 1, "500kbit": 62_500, "20Mbit": 2_500_000, "20Mbit/s": 2_500_000, "1Gbit": 125_000_000,
		"1.5Mbit": 187_500, "2kB": 2000, "2MB/s": 2_000_000, "1GB": 1_000_000_000, "98.765432Mbit": 12_345_679, "10.123456789Gbit": 1_265_432_099,
	} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want {
			t.Errorf("%q: %d, %v; want %d", text, r, err, want)
		}
		var again Rate
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q printed as %q, read as %d, %v", text, r, again, err)
		}
	}
	for _, text := range []string{"20", "Mbit", "-1Mbit", "1mbit", "0.1bit", "NaNMbit", "InfMbit", "1e30Mbit", "20 Mbit x"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, r)
		}
	}
}
