package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Schedule is when an app is started: the five fields of cron (minute, hour, day of month, month, day of week; lists,
// ranges, steps, names), @hourly, @daily, @weekly, @monthly, @yearly, or "@every 10m".
type Schedule struct {
	every                         time.Duration // 0: by the fields, in local time
	minute, hour, day, month, dow uint64        // a bit for each value
	anyDay, anyDow                bool
}

// minEvery keeps a schedule from being a busy loop.
const minEvery = time.Second

// ParseSchedule reads a schedule.
func ParseSchedule(text string) (Schedule, error) {
	if rest, ok := strings.CutPrefix(text, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(rest))
		if err != nil || d < minEvery {
			return Schedule{}, fmt.Errorf("%q: a duration of a second or more, such as @every 10m", text)
		}
		return Schedule{every: d}, nil
	}
	switch text {
	case "@hourly":
		text = "0 * * * *"
	case "@daily", "@midnight":
		text = "0 0 * * *"
	case "@weekly":
		text = "0 0 * * 0"
	case "@monthly":
		text = "0 0 1 * *"
	case "@yearly", "@annually":
		text = "0 0 1 1 *"
	}
	f := strings.Fields(text)
	if len(f) != 5 {
		return Schedule{}, fmt.Errorf("%q: five fields (minute hour day month weekday), @daily or @every 10m", text)
	}
	var s Schedule
	var errs [5]error
	s.minute, errs[0] = cronField(f[0], 0, 59, "")
	s.hour, errs[1] = cronField(f[1], 0, 23, "")
	s.day, errs[2] = cronField(f[2], 1, 31, "")
	s.month, errs[3] = cronField(f[3], 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec")
	s.dow, errs[4] = cronField(f[4], 0, 7, "sun mon tue wed thu fri sat")
	if s.dow&(1<<7) != 0 { // 7 is Sunday too
		s.dow |= 1
	}
	s.anyDay, s.anyDow = strings.HasPrefix(f[2], "*"), strings.HasPrefix(f[4], "*")
	return s, errors.Join(errs[:]...)
}

// cronField reads one field into a bit for each value.
func cronField(text string, low, high int, names string) (bits uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > high {
				return 0, fmt.Errorf("%q: bad step", part)
			}
		}
		from, to := low, high
		if span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			if from, err = cronValue(first, low, names); err != nil {
				return 0, err
			}
			switch {
			case ranged:
				if to, err = cronValue(last, low, names); err != nil {
					return 0, err
				}
			case !stepped:
				to = from
			}
		}
		if from < low || to > high || from > to {
			return 0, fmt.Errorf("%q: values are %d to %d", part, low, high)
		}
		for v := from; v <= to; v += step {
			bits |= 1 << v
		}
	}
	return bits, nil
}

func cronValue(text string, low int, names string) (int, error) {
	for i, n := range strings.Fields(names) {
		if strings.EqualFold(text, n) {
			return low + i, nil
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return v, nil
}

// Next returns the first time after from, zero if there is none within five years. Times that a change of the clock
// leaves out are taken at the next minute that fits; those that come twice are taken once, since from moves on.
func (s Schedule) Next(from time.Time) time.Time {
	if s.every > 0 {
		return from.Add(s.every)
	}
	t := from.Truncate(time.Minute).Add(time.Minute)
	end := from.AddDate(5, 0, 0)
	for t.Before(end) {
		y, m, d := t.Date()
		switch {
		case s.month&(1<<int(m)) == 0:
			t = time.Date(y, m+1, 1, 0, 0, 0, 0, t.Location())
		case !s.onDay(t):
			t = time.Date(y, m, d+1, 0, 0, 0, 0, t.Location())
		case s.hour&(1<<t.Hour()) == 0:
			t = t.Add(time.Hour - time.Duration(t.Minute())*time.Minute)
		case s.minute&(1<<t.Minute()) == 0:
			t = t.Add(time.Minute)
		default:
			return t
		}
	}
	return time.Time{}
}

// onDay follows cron: with both days restricted either will do.
func (s Schedule) onDay(t time.Time) bool {
	day, dow := s.day&(1<<t.Day()) != 0, s.dow&(1<<int(t.Weekday())) != 0
	if s.anyDay || s.anyDow {
		return day && dow
	}
	return day || dow
}
