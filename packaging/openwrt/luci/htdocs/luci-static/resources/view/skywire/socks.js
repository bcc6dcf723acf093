'use strict';
'require view';
'require form';
'require poll';
'require skywire.tools as tools';

return view.extend({
	load() {
		return Promise.all([tools.status(), tools.servers()]);
	},

	now(s) {
		const all = s.socks.data || [];
		if (!all.length)
			return [tools.problem(s.socks), E('p', {}, [_('No proxy runs.')])];
		return [tools.table('skywire-socks', [_('Proxy'), _('Listens on'), _('Exit'), _('Connections'), _('Accepted'), _('Refused'), _('Received'), _('Sent')],
			all.map(function(p) {
				const t = p.status || {};
				return [p.name, t.listen, t.exit ? tools.key(t.exit) : '', t.connections, t.accepted, t.denied, tools.bytes(t.rx_bytes), tools.bytes(t.tx_bytes)];
			}))];
	},

	exits(servers) {
		return tools.table('skywire-socks-servers', [_('Name'), _('Key'), _('Answers'), _('Round trip')],
			(servers.socks.data || []).map(function(o) {
				return [o.name, E('code', {}, [o.key]), o.online ? _('yes') : _('no'), tools.millis(o.rtt_ms)];
			}), _('Nobody in the mesh offers any.'));
	},

	settings(servers) {
		const m = new form.Map('skywire', null, null);
		let s = m.section(form.NamedSection, 'socks_client', 'socks_client', _('Proxy of this box'), _('SOCKS4, 5 and HTTP on one port.'));
		let o = s.option(form.Flag, 'enabled', _('Switched on'));
		o.rmempty = false;
		o = s.option(form.Value, 'listen', _('Listens on'), _('An address of the LAN lets its computers use it.'));
		o.placeholder = '127.0.0.1:1080';
		o.datatype = 'ipaddrport(1)';
		o = s.option(form.Flag, 'open', _('Without password'), _('Needed where others than this box reach the port, unless users are named.'));
		o = s.option(form.DynamicList, 'server', _('Exits'), _('In this order; none: the nearest.'));
		(servers.socks.data || []).forEach(function(exit) { o.value(exit.key, tools.label(exit)); });
		o = s.option(form.DynamicList, 'rules', _('Rules'), _('What goes another way, the first that fits.'));
		o.placeholder = 'suffix:lan=direct';
		o = s.option(form.Flag, 'optimistic', _('Optimistic'), _('Says yes to programs before the exit did: one round trip less.'));

		s = m.section(form.NamedSection, 'socks_server', 'socks_server', _('Exit for others'));
		o = s.option(form.Flag, 'enabled', _('Switched on'));
		o.rmempty = false;
		o = s.option(form.DynamicList, 'allow', _('Who may'), _('Keys, or @tag of the cluster.'));
		o = s.option(form.Flag, 'allow_private', _('Private addresses too'), _('Else the networks behind this box are out of reach.'));
		o = s.option(form.Value, 'rate', _('Rate'), _('Of each key.'));
		o.placeholder = '10M';
		return m;
	},

	render(loaded) {
		const [status, servers] = loaded;
		const now = tools.replace(E('div', {}), this.now(status));
		poll.add(L.bind(function() {
			return tools.status().then(L.bind(function(s) { tools.replace(now, this.now(s)); }, this));
		}, this), 5);
		return this.settings(servers).render().then(L.bind(function(map) {
			return E('div', {}, [
				E('h2', {}, [_('Proxy')]), tools.section(_('Now'), [now]), tools.section(_('Exits of the mesh'), [this.exits(servers)]), map
			]);
		}, this));
	}
});
