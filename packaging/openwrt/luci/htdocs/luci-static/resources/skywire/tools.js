'use strict';
'require baseclass';
'require rpc';
'require ui';
'require dom';

// What the views share: the calls of the backend, and how its answers look. An answer is {data} or {error}.

function call(method, params) {
	return rpc.declare({ object: 'luci.skywire', method: method, params: params || [] });
}

const units = ['B', 'kB', 'MB', 'GB', 'TB'];

return baseclass.extend({
	status: call('status'),
	servers: call('servers'),
	apps: call('apps'),
	start: call('start', ['app']),
	stop: call('stop', ['id']),
	logs: call('logs', ['id']),
	join: call('join', ['invite']),
	release: call('release'),
	instances: rpc.declare({ object: 'service', method: 'list', params: ['name'], expect: { skywire: {} } }),

	bytes(n) {
		let unit = 0;
		for (n = Number(n) || 0; n >= 1000 && unit < units.length - 1; unit++)
			n /= 1000;
		return (unit && n < 10 ? n.toFixed(1) : Math.round(n)) + ' ' + units[unit];
	},

	duration(s) {
		s = Math.floor(Number(s) || 0);
		const parts = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60, s % 60];
		const first = parts.findIndex(function(n) { return n > 0; });
		if (first < 0)
			return '0 s';
		const names = ['d', 'h', 'min', 's'];
		return parts.slice(first, first + 2).map(function(n, i) { return n + ' ' + names[first + i]; }).join(' ');
	},

	millis(n) {
		return n == null ? '' : Number(n).toFixed(1) + ' ms';
	},

	percent(n) {
		return n == null ? '' : (Number(n) * 100).toFixed(1) + ' %';
	},

	// A key is long: its head says enough in a table, and the whole stands in its title.
	key(k) {
		return k ? E('code', { 'title': k }, [k.slice(0, 12) + '…']) : '';
	},

	// What an offer is called in a list to choose from, which may be made of HTML: a name is of another box.
	label(offer) {
		return ((offer.name || '').replace(/[^\w.-]/g, '') + ' ' + offer.key.slice(0, 12) + '…').trim();
	},

	// Words of the mesh come from other boxes. They only ever become text: E() makes HTML of a string, and of an array it does not.
	cell(v) {
		if (v == null)
			v = '';
		return E('td', { 'class': 'td' }, [typeof v === 'object' ? v : String(v)]);
	},

	table(id, heads, rows, empty) {
		const table = E('table', { 'class': 'table', 'id': id }, [
			E('tr', { 'class': 'tr table-titles' }, heads.map(function(h) { return E('th', { 'class': 'th' }, [h]); }))
		]);
		rows.forEach(function(row) {
			table.appendChild(E('tr', { 'class': 'tr' }, row.map(this.cell)));
		}, this);
		if (!rows.length)
			table.appendChild(E('tr', { 'class': 'tr placeholder' }, [E('td', { 'class': 'td', 'colspan': heads.length }, [E('em', {}, [empty || _('None.')])])]));
		return table;
	},

	// Two columns: what it is, and its value.
	facts(id, rows) {
		return E('table', { 'class': 'table', 'id': id }, rows.filter(function(row) {
			return row[1] != null && row[1] !== '';
		}).map(function(row) {
			return E('tr', { 'class': 'tr' }, [E('td', { 'class': 'td left', 'width': '33%' }, [row[0]]), this.cell(row[1])]);
		}, this));
	},

	section(title, children) {
		return E('div', { 'class': 'cbi-section' }, [E('h3', {}, [title])].concat(children));
	},

	problem(answer) {
		return answer && answer.error ? E('p', { 'class': 'alert-message warning' }, [answer.error]) : '';
	},

	// A button that waits for what it started and says how that went.
	button(label, style, what, done) {
		return E('button', {
			'class': 'btn cbi-button cbi-button-' + style,
			'click': ui.createHandlerFn(this, function() {
				return what().then(L.bind(function(answer) {
					this.say(answer);
					return done ? done(answer) : null;
				}, this));
			})
		}, [label]);
	},

	say(answer) {
		if (answer && answer.error)
			ui.addNotification(null, E('p', {}, [answer.error]), 'error');
	},

	replace(node, children) {
		dom.content(node, children);
		return node;
	}
});
