package stream

import "golang.org/x/sys/windows"

const errTooLong = windows.WSAEMSGSIZE
