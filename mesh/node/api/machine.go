package api

// Machine is how the node uses the box, part of node.status.
type Machine struct {
	CPUs         int    `json:"cpus"`                          // that the node may run on
	Processors   int    `json:"gomaxprocs,omitempty"`          // 0: not known
	Memory       uint64 `json:"memory_bytes"`                  // of the box, or what the setting says
	Small        bool   `json:"small"`                         // buffers and queues of a box with little memory
	SocketBuffer int    `json:"socket_buffer_bytes,omitempty"` // asked for each socket; 0: the default
	Goroutines   int    `json:"goroutines"`                    // what a leak would show in
	Loops        []Loop `json:"loops"`
}

// Loop is one event loop: what it serves and what it has taken in.
type Loop struct {
	Ports        []uint16 `json:"ports"`
	TUNQueues    int      `json:"tun_queues"`
	SocketTrains uint64   `json:"socket_trains"`
	SocketBytes  uint64   `json:"socket_bytes"`
	TUNReads     uint64   `json:"tun_reads"`
	TUNBytes     uint64   `json:"tun_bytes"`
}
