'use strict';
'require view';
'require form';
'require poll';
'require ui';
'require skywire.tools as tools';

return view.extend({
	load() {
		return Promise.all([tools.status(), tools.servers()]);
	},

	now(s) {
		const v = s.vpn.data, lock = s.lock.data || {};
		const locked = lock.table && lock.routes;
		const rows = [[_('Kill switch'), locked ? _('in force; %d packets stopped').format(lock.blocked_packets) : lock.wanted ? _('wanted, and not in force') : _('off')]];
		if (v) {
			const c = v.client || {};
			rows.unshift(
				[_('State'), v.state + (c.error ? ': ' + c.error : '')],
				[_('Device'), v.device],
				[_('Address'), [v.address, v.ipv4, c.ipv4].filter(function(a) { return a; }).join(', ')],
				[_('Server'), c.server ? tools.key(c.server) : ''],
				[_('Round trip'), c.rtt_ms ? tools.millis(c.rtt_ms) : ''],
				[_('Received'), tools.bytes(v.rx_bytes)],
				[_('Sent'), tools.bytes(v.tx_bytes)],
				[_('Clients'), v.server && v.server.clients ? v.server.clients.length : '']);
		}
		return [v ? '' : tools.problem(s.vpn), tools.facts('skywire-vpn', rows)];
	},

	offers(servers) {
		return tools.table('skywire-vpn-servers', [_('Name'), _('Key'), _('Answers'), _('Round trip'), _('Offers')],
			(servers.vpn.data || []).map(function(o) {
				return [o.name, E('code', {}, [o.key]), o.online ? _('yes') : _('no'), tools.millis(o.rtt_ms), o.offers];
			}), _('Nobody in the mesh offers any.'));
	},

	settings(servers) {
		const m = new form.Map('skywire', null, null);
		let s = m.section(form.NamedSection, 'vpn', 'vpn', _('Device'));
		let o = s.option(form.Flag, 'enabled', _('Switched on'), _('Mesh addresses on a device, and what is said below.'));
		o.rmempty = false;
		o = s.option(form.Value, 'mtu', _('MTU'));
		o.datatype = 'range(1280,65535)';
		o.placeholder = '1400';

		s = m.section(form.NamedSection, 'vpn_client', 'vpn_client', _('Use another box'));
		o = s.option(form.Flag, 'enabled', _('Switched on'));
		o.rmempty = false;
		o = s.option(form.DynamicList, 'servers', _('Servers'), _('In this order; none: the nearest.'));
		(servers.vpn.data || []).forEach(function(offer) { o.value(offer.key, tools.label(offer)); });
		o = s.option(form.Flag, 'exit', _('All traffic'), _('Else only the networks that the server offers.'));
		o = s.option(form.Flag, 'kill_switch', _('Kill switch'), _('Nothing leaves beside the tunnel, whatever dies, until it is released.'));
		o.depends('exit', '1');
		o = s.option(form.Flag, 'lan', _('Except local networks'), _('Else the kill switch cuts off this page, too, where it is not reached through the mesh.'));
		o.depends('kill_switch', '1');
		o.default = o.enabled;
		o = s.option(form.DynamicList, 'gateway', _('Networks behind this box that go the same way'));
		o.placeholder = '192.168.1.0/24';
		o = s.option(form.DynamicList, 'exclude', _('Addresses that stay out'));
		o.placeholder = '203.0.113.0/24';

		s = m.section(form.NamedSection, 'vpn_server', 'vpn_server', _('Let others use this box'));
		o = s.option(form.Flag, 'enabled', _('Switched on'));
		o.rmempty = false;
		o = s.option(form.Flag, 'exit', _('Its internet access'));
		o = s.option(form.DynamicList, 'subnets', _('Networks behind it'));
		o.placeholder = '192.168.1.0/24';
		o = s.option(form.DynamicList, 'allow', _('Who may'), _('Keys, or @tag of the cluster.'));
		o = s.option(form.Value, 'rate', _('Rate'), _('Of each client, both ways.'));
		o.placeholder = '10M';
		return m;
	},

	render(loaded) {
		const [status, servers] = loaded;
		const now = tools.replace(E('div', {}), this.now(status));
		poll.add(L.bind(function() {
			return tools.status().then(L.bind(function(s) { tools.replace(now, this.now(s)); }, this));
		}, this), 5);
		const release = tools.button(_('Release the kill switch'), 'negative', tools.release);
		return this.settings(servers).render().then(L.bind(function(map) {
			return E('div', {}, [
				E('h2', {}, [_('Vpn')]), tools.section(_('Now'), [now, E('div', { 'class': 'right' }, [release])]),
				tools.section(_('Servers of the mesh'), [this.offers(servers)]), map
			]);
		}, this));
	}
});
