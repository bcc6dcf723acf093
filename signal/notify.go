package signal

import (
	"net"
	"time"
)

// notifyLimit is how long a service manager may take to read a message.
const notifyLimit = time.Second

// Notify sends one message of sd_notify(3), as "READY=1", to the service manager whose socket has this name: the value of
// NOTIFY_SOCKET, where a leading @ stands for an abstract name. Without a name it does nothing.
func Notify(socket, state string) error {
	if socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(notifyLimit))
	_, err = c.Write([]byte(state))
	return err
}
