'use strict';
'require view';
'require fs';
'require poll';
'require skywire.tools as tools';

return view.extend({
	load() {
		return L.resolveDefault(fs.exec_direct('/sbin/logread', ['-e', 'skywire']), '');
	},

	render(text) {
		const log = E('pre', { 'id': 'skywire-syslog', 'style': 'max-height:40em;overflow:auto' });
		const show = function(text) {
			const bottom = log.scrollHeight - log.scrollTop - log.clientHeight < 20;
			tools.replace(log, [text.split('\n').slice(-500).join('\n') || _('Nothing was said yet.')]);
			if (bottom)
				log.scrollTop = log.scrollHeight;
		};
		show(text);
		poll.add(L.bind(function() { return this.load().then(show); }, this), 5);
		return E('div', { 'class': 'cbi-map' }, [E('h2', {}, [_('Log')]), E('p', {}, [_('What the daemons said since the box was started.')]), log]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
