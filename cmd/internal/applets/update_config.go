package applets

import "time"

// updateName is the tool and its section of config.yaml.
const updateName = "update"

// updateConfig is the section "update" of config.yaml, which all builds know.
type updateConfig struct {
	From    string        `yaml:"from"`
	Keys    []string      `yaml:"keys"`
	Gate    time.Duration `yaml:"gate"`
	Restart string        `yaml:"restart"`
}
