package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Metrics is what Status and Top say in the text format of Prometheus (version 0.0.4). What the kernel does not tell has
// no sample.
func (s *Supervisor) Metrics(ctx context.Context) (string, error) {
	in, err := s.Status(ctx)
	if err != nil {
		return "", err
	}
	list, err := s.Top(ctx)
	if err != nil {
		return "", err
	}
	var m metrics
	m.family("viscript_info", "gauge", "The running viscript.")
	m.sample(1, "version", in.Version)
	m.family("viscript_uptime_seconds", "gauge", "Since viscript began.")
	m.sample(in.Uptime)
	m.family("viscript_apps_configured", "gauge", "Apps in config.yaml.")
	m.sample(float64(in.Apps))
	m.family("viscript_app_state", "gauge", "1 for the state that an app is in.")
	for _, t := range list {
		m.sample(1, t.labels("state", string(t.State))...)
	}
	m.family("viscript_app_cpu_seconds_total", "counter", "Processor time of the app's process tree.")
	for _, t := range list {
		if u := t.Usage; u.CPUUser != nil && u.CPUSys != nil {
			m.sample(*u.CPUUser, t.labels("mode", "user")...)
			m.sample(*u.CPUSys, t.labels("mode", "system")...)
		}
	}
	for _, f := range []struct {
		name, kind, help string
		value            func(*Top) (float64, bool)
	}{
		{"restarts_total", "counter", "How often an app was started again.", func(t *Top) (float64, bool) { return float64(t.Restarts), true }},
		{"resident_memory_bytes", "gauge", "Memory of the app's process tree.", func(t *Top) (float64, bool) { return known(t.Usage.RSS) }},
		{"processes", "gauge", "Processes of the app's tree.", func(t *Top) (float64, bool) { return known(t.Usage.Processes) }},
		{"open_fds", "gauge", "Descriptors that the app's tree has open.", func(t *Top) (float64, bool) { return known(t.Usage.FDs) }},
	} {
		m.family("viscript_app_"+f.name, f.kind, f.help)
		for i := range list {
			if v, ok := f.value(&list[i]); ok {
				m.sample(v, list[i].labels()...)
			}
		}
	}
	return m.String(), nil
}

func known[T int | uint64](v *T) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return float64(*v), true
}

// labels name an app in a sample.
func (t *Top) labels(more ...string) []string {
	return append([]string{"app", t.Name, "id", strconv.FormatUint(t.ID, 10)}, more...)
}

// metrics writes families of samples.
type metrics struct {
	bytes.Buffer
	name string // of the present family
}

func (m *metrics) family(name, kind, help string) {
	m.name = name
	fmt.Fprintf(m, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one value with names and values of labels.
func (m *metrics) sample(v float64, labels ...string) {
	m.WriteString(m.name)
	for i := 0; i < len(labels); i += 2 {
		m.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(m, `%s="%s"`, labels[i], strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		m.WriteByte('}')
	}
	m.WriteByte(' ')
	m.Write(strconv.AppendFloat(nil, v, 'g', -1, 64))
	m.WriteByte('\n')
}
