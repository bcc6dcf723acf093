package api

import "testing"

func TestParseDeviceCounters(t *testing.T) {
	t.Parallel()
	const text = "Inter-|   Receive                                                |  Transmit\n" +
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
		"    lo: 2776770   11307    0    0    0     0          0         0  2776771   11307    0    0    0     0       0          0\n" +
		"skywire0:1215645    2751    0    0    0     0          0         0  1782404    4324    0    0    0   427       0          0\n" +
		"short: 1 2\nodd: x 1 2 3 4 5 6 7 8\n"
	got := parseDeviceCounters(text)
	if len(got) != 2 || got["lo"] != [2]uint64{2776770, 2776771} || got["skywire0"] != [2]uint64{1215645, 1782404} {
		t.Errorf("%v", got)
	}
}
