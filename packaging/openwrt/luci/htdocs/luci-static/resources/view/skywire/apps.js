'use strict';
'require view';
'require form';
'require poll';
'require ui';
'require skywire.tools as tools';

return view.extend({
	load() {
		return Promise.all([tools.apps(), tools.instances('skywire')]);
	},

	show(id) {
		return tools.logs(id).then(function(answer) {
			const lines = (answer.data || []).map(function(l) { return l.time.slice(11, 19) + ' ' + l.text; });
			ui.showModal(_('Log of %s').format(id), [
				answer.error ? tools.problem(answer) : E('pre', { 'id': 'skywire-log', 'style': 'max-height:30em;overflow:auto' }, [lines.join('\n') || _('It said nothing.')]),
				E('div', { 'class': 'right' }, [E('button', { 'class': 'btn', 'click': ui.hideModal }, [_('Close')])])
			]);
		});
	},

	content(apps, service) {
		const again = L.bind(this.refresh, this), show = L.bind(this.show, this);
		const instances = service.instances || {};
		const daemons = Object.keys(instances).sort().map(function(name) {
			const i = instances[name];
			return [name, i.running ? _('running') : _('not running'), i.pid, (i.command || []).join(' ')];
		});
		const running = (apps.running.data || []).map(function(a) {
			const id = String(a.id);
			const over = a.state === 'exited' || a.state === 'failed';
			return [id, a.name, a.state + (a.exit_reason ? ': ' + a.exit_reason : ''), a.pid, a.restarts, a.rss_bytes ? tools.bytes(a.rss_bytes) : '',
				E('span', {}, [
					over ? '' : tools.button(_('Stop'), 'negative', function() { return tools.stop(id); }, again),
					E('button', { 'class': 'btn', 'click': ui.createHandlerFn(this, function() { return show(id); }) }, [_('Log')])
				])];
		}, this);
		const ready = (apps.apps.data || []).map(function(a) {
			return [a.name, a.desc, a.path, tools.button(_('Start'), 'apply', function() { return tools.start(a.name); }, again)];
		});
		return [
			tools.section(_('Daemons'), [tools.table('skywire-daemons', [_('Name'), _('State'), _('Process'), _('Command')], daemons, _('Switched off under Settings.'))]),
			tools.section(_('Apps that run or ran'), [
				apps.running.code === 3 ? E('p', {}, [_('Viscript does not run: it is switched on below.')]) : tools.problem(apps.running),
				tools.table('skywire-apps', [_('Id'), _('Name'), _('State'), _('Process'), _('Restarts'), _('Memory'), ''], running)
			]),
			tools.section(_('Apps to start'), [tools.table('skywire-ready', [_('Name'), _('What it does'), _('Program'), ''], ready)])
		];
	},

	refresh() {
		return this.load().then(L.bind(function(now) { tools.replace(this.node, this.content(now[0], now[1])); }, this));
	},

	settings() {
		const m = new form.Map('skywire', null, null);
		let s = m.section(form.NamedSection, 'viscript', 'viscript', _('Viscript'), _('Starts programs of yours, watches them, keeps their output.'));
		let o = s.option(form.Flag, 'enabled', _('Switched on'));
		o.rmempty = false;
		s = m.section(form.TypedSection, 'app', _('Programs'));
		s.addremove = true;
		o = s.option(form.Value, 'path', _('Program'));
		o.rmempty = false;
		o = s.option(form.DynamicList, 'default_args', _('Arguments'));
		o = s.option(form.Value, 'desc', _('What it does'));
		o = s.option(form.Flag, 'autostart', _('Started with the box, and again when it fails'));
		return m;
	},

	render(loaded) {
		this.node = tools.replace(E('div', {}), this.content(loaded[0], loaded[1]));
		poll.add(L.bind(this.refresh, this), 5);
		return this.settings().render().then(L.bind(function(map) {
			return E('div', {}, [E('h2', {}, [_('Apps')]), this.node, map]);
		}, this));
	}
});
