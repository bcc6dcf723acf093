package yaml

// The two patterns of v3.0.6 as loops: package regexp would be linked for them alone.

// matchFloat is ^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$
func matchFloat(s string) bool {
	s = cutSign(s)
	whole := digits(s)
	s = s[whole:]
	fraction := 0
	if s != "" && s[0] == '.' {
		fraction = digits(s[1:])
		s = s[1+fraction:]
	}
	if whole+fraction == 0 {
		return false
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = cutSign(s[1:])
		exponent := digits(s)
		if exponent == 0 {
			return false
		}
		s = s[exponent:]
	}
	return s == ""
}

// matchBase60Float is ^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$
func matchBase60Float(s string) bool {
	s = cutSign(s)
	if digits(s) == 0 {
		return false
	}
	s = s[digitsOrBars(s):]
	if s == "" || s[0] != ':' {
		return false
	}
	for s != "" && s[0] == ':' {
		n := min(digits(s[1:]), 2)
		if n == 0 || n == 2 && s[1] > '5' {
			return false
		}
		s = s[1+n:]
	}
	if s != "" && s[0] == '.' {
		s = s[1+digitsOrBars(s[1:]):]
	}
	return s == ""
}

func cutSign(s string) string {
	if s != "" && (s[0] == '-' || s[0] == '+') {
		return s[1:]
	}
	return s
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func digitsOrBars(s string) int {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '_') {
		n++
	}
	return n
}
