package applets

// socksPublishKind is the kind under which publishers register with the node.
const socksPublishKind = "socks-publish"

type socksPublishConfig struct {
	Name        string   `yaml:"name"`
	Services    []string `yaml:"services"`
	Allow       []string `yaml:"allow"`
	ProxyHeader bool     `yaml:"proxy_header"`
	NoVPN       bool     `yaml:"no_vpn"`
}

// socksForwardKind is the kind under which forwards register with the node.
const socksForwardKind = "socks-forward"

type socksForwardConfig struct {
	Name  string   `yaml:"name"`
	Local []string `yaml:"local"`
}
