'use strict';
'require view';
'require poll';
'require ui';
'require skywire.tools as tools';

return view.extend({
	load() {
		return tools.status();
	},

	// What the node is, and to what it belongs.
	about(s) {
		const n = s.node.data;
		if (!n)
			return [tools.problem(s.node), E('p', {}, [_('The node is switched on under Settings.')])];
		const m = n.membership || {};
		const member = m.cluster ? _('%s of cluster %s').format(m.state, m.cluster.slice(0, 12) + '…') : _('of no cluster (%s)').format(m.mode);
		return [tools.facts('skywire-node', [
			[_('Key'), E('code', { 'style': 'word-break:break-all' }, [n.key])],
			[_('Name'), n.name],
			[_('Mesh address'), n.address],
			[_('Standing'), member + (m.why ? ': ' + m.why : '')],
			[_('Certificate until'), m.certificate ? m.certificate.not_after.slice(0, 10) : ''],
			[_('Manager'), n.manager && n.manager.key ? n.manager.key.slice(0, 12) + '… ' + n.manager.state : ''],
			[_('Running for'), tools.duration(n.uptime_s)],
			[_('Version'), n.version],
			[_('Alarm'), n.twin]
		])];
	},

	traffic(s) {
		const n = s.node.data;
		if (!n)
			return [];
		const drops = Object.keys(n.drops || {}).sort();
		return [tools.section(_('Traffic'), [
			tools.facts('skywire-traffic', [
				[_('Links, sessions, routes'), n.links + ', ' + n.sessions + ', ' + n.routes],
				[_('Received'), tools.bytes(n.rx_bytes)],
				[_('Sent'), tools.bytes(n.tx_bytes)],
				[_('Relayed for others'), tools.bytes(n.relayed_bytes)]
			]),
			drops.length ? tools.table('skywire-drops', [_('Dropped, and why'), _('Packets')], drops.map(function(why) { return [why, n.drops[why]]; })) : ''
		])];
	},

	neighbours(s) {
		return [tools.section(_('Links'), [
			tools.table('skywire-links', [_('Name'), _('Key'), _('Address'), _('State'), _('Round trip'), _('Loss'), _('Received'), _('Sent'), _('Up for')],
				(s.peers.data || []).map(function(p) {
					return [p.name, tools.key(p.key), p.endpoint, p.state, tools.millis(p.rtt_ms), tools.percent(p.loss),
						tools.bytes(p.rx_bytes), tools.bytes(p.tx_bytes), tools.duration(p.up_s)];
				}), _('No neighbours: name one under Settings, or join a cluster.'))
		])];
	},

	paths(s) {
		return [tools.section(_('Paths'), [
			tools.table('skywire-paths', [_('To'), _('Over'), _('Role'), _('State'), _('Round trip'), _('Loss')],
				(s.paths.data || []).map(function(p) {
					const names = p.names || [];
					return [names[names.length - 1] || tools.key(p.peer), names.slice(1, -1).join(' → ') || _('nobody'), p.role, p.state,
						tools.millis(p.rtt_ms), tools.percent(p.loss)];
				}), _('No session with another node.'))
		])];
	},

	joining() {
		const text = E('textarea', {
			'id': 'skywire-invite', 'class': 'cbi-input-textarea', 'rows': 3, 'style': 'width:100%', 'spellcheck': 'false', 'autocomplete': 'off',
			'placeholder': 'skywire:join?…'
		});
		return tools.section(_('Join a cluster'), [
			E('p', {}, [_('Paste the invite that a manager of the cluster made. It is good once, and shows nobody else who has it.')]),
			text,
			E('div', { 'class': 'right' }, [
				tools.button(_('Join'), 'apply', function() { return tools.join(text.value.trim()); }, function(answer) {
					if (!answer.error) {
						text.value = '';
						ui.addNotification(null, E('p', {}, [_('The node has the invite. Its standing above says how it goes.')]), 'info');
					}
				})
			])
		]);
	},

	content(s) {
		return [].concat([tools.section(_('This node'), this.about(s))], this.traffic(s), this.neighbours(s), this.paths(s));
	},

	render(s) {
		const content = tools.replace(E('div', {}), this.content(s));
		poll.add(L.bind(function() {
			return tools.status().then(L.bind(function(now) { tools.replace(content, this.content(now)); }, this));
		}, this), 5);
		return E('div', { 'class': 'cbi-map' }, [E('h2', {}, [_('Skywire')]), content, this.joining()]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
