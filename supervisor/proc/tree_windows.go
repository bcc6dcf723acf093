package proc

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// tree is a job: what a process starts belongs to it, and can't leave it. The kernel ends all of a job when the last handle
// to it is closed, so apps end with a killed viscript: nothing here adopts them, and what goes on without anybody would be
// started a second time.
type tree struct{ job windows.Handle }

// startTree starts a process that runs only once it is in its job, so that nothing it starts is outside.
func startTree(path string, args []string, attr *os.ProcAttr) (*os.Process, *tree, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, nil, os.NewSyscallError("CreateJobObject", err)
	}
	t := &tree{job}
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if err != nil {
		t.close()
		return nil, nil, os.NewSyscallError("SetInformationJobObject", err)
	}
	// A group of its own, so that a break reaches this app alone.
	attr.Sys = &syscall.SysProcAttr{CreationFlags: windows.CREATE_SUSPENDED | windows.CREATE_NEW_PROCESS_GROUP}
	if len(attr.Files) > 3 { // only the three standard ones can be handed over
		attr.Files = attr.Files[:3]
	}
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		t.close()
		return nil, nil, err
	}
	if err = t.take(p.Pid); err != nil {
		p.Kill()
		p.Wait() //nolint:errcheck // the error before counts
		t.close()
		return nil, nil, err
	}
	return p, t, nil
}

// take puts a suspended process into the job and lets it run.
func (t *tree) take(pid int) error {
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(pid))
	if err != nil {
		return os.NewSyscallError("OpenProcess", err)
	}
	defer windows.CloseHandle(h)
	if err := windows.AssignProcessToJobObject(t.job, h); err != nil {
		return os.NewSyscallError("AssignProcessToJobObject", err)
	}
	snap, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPTHREAD, 0)
	if err != nil {
		return os.NewSyscallError("CreateToolhelp32Snapshot", err)
	}
	defer windows.CloseHandle(snap)
	e := windows.ThreadEntry32{Size: uint32(unsafe.Sizeof(windows.ThreadEntry32{}))}
	for err = windows.Thread32First(snap, &e); err == nil; err = windows.Thread32Next(snap, &e) {
		if e.OwnerProcessID != uint32(pid) {
			continue
		}
		th, err := windows.OpenThread(windows.THREAD_SUSPEND_RESUME, false, e.ThreadID)
		if err != nil {
			return os.NewSyscallError("OpenThread", err)
		}
		_, err = windows.ResumeThread(th)
		windows.CloseHandle(th)
		return os.NewSyscallError("ResumeThread", err)
	}
	return os.NewSyscallError("Thread32Next", err)
}

// maxPIDs bounds the processes of a job that are listed.
const maxPIDs = 4096

// pids are the living processes of the job.
func (t *tree) pids() []int {
	var list struct {
		assigned, listed uint32
		pids             [maxPIDs]uintptr
	}
	const basicProcessIDList = 3
	err := windows.QueryInformationJobObject(t.job, basicProcessIDList, uintptr(unsafe.Pointer(&list)), uint32(unsafe.Sizeof(list)), nil)
	if err != nil && list.listed == 0 {
		return nil
	}
	all := make([]int, 0, list.listed)
	for _, p := range list.pids[:min(list.listed, maxPIDs)] {
		all = append(all, int(p))
	}
	return all
}

// signal asks the process to end: KILL is meant for the whole job, everything else is a break on the console, which
// programs without a console do not hear.
func (t *tree) signal(p *os.Process, sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		t.kill(p)
		return
	}
	windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.Pid)) //nolint:errcheck // KILL follows
}

// kill ends all of the job.
func (t *tree) kill(*os.Process) {
	windows.TerminateJobObject(t.job, 1) //nolint:errcheck // who is left is looked for afterwards
}

func (t *tree) close() { windows.CloseHandle(t.job) }

// exit is how the first process ended.
func (t *tree) exit(st *os.ProcessState) Exit {
	code := st.ExitCode()
	return Exit{Code: &code}
}

// usage is what the job has used, those who have ended too.
func (t *tree) usage(u *Usage) {
	var a struct {
		user, kernel, periodUser, periodKernel int64 // in 100 ns
		faults, processes, active, terminated  uint32
		reads, writes, others                  uint64
		readBytes, writeBytes, otherBytes      uint64
	}
	const basicAndIOAccounting = 8
	err := windows.QueryInformationJobObject(t.job, basicAndIOAccounting, uintptr(unsafe.Pointer(&a)), uint32(unsafe.Sizeof(a)), nil)
	if err != nil {
		return
	}
	u.CPUUser, u.CPUSys = time.Duration(a.user)*100, time.Duration(a.kernel)*100
	u.IORead, u.IOWrite, u.Source = &a.readBytes, &a.writeBytes, "job"
	var rss uint64
	for _, pid := range t.pids() {
		n, ok := workingSet(pid)
		if !ok {
			return
		}
		rss += n
	}
	u.RSS = &rss
}

// workingSet is the memory of a process in RAM.
func workingSet(pid int) (uint64, bool) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return 0, false
	}
	defer windows.CloseHandle(h)
	var m struct {
		size, faults                                                        uint32
		peak, set, peakPaged, paged, peakNonPaged, nonPaged, file, peakFile uintptr
	}
	m.size = uint32(unsafe.Sizeof(m))
	ok, _, _ := windows.NewLazySystemDLL("kernel32.dll").NewProc("K32GetProcessMemoryInfo").Call(uintptr(h), uintptr(unsafe.Pointer(&m)), uintptr(m.size))
	return uint64(m.set), ok != 0
}
